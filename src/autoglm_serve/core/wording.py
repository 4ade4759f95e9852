"""Words for a person: who mistyped something, or whose terminal does not know every character."""

import difflib
import io
import re
from collections.abc import Iterable
from typing import TextIO

_NEAR = 0.7
"""By difflib's ratio, of what names do not share anyway. At its own 0.6, --api-key is near --wait-ready-s."""
_PREFIX = re.compile(r"--|AUTOGLM_")


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """ " Did you mean X?" with the nearest of `right`, or nothing where none is near."""
    by_rest = {_rest(name): name for name in right}
    nearest = difflib.get_close_matches(_rest(wrong), by_rest, n=1, cutoff=_NEAR)
    return f" Did you mean {by_rest[nearest[0]]}?" if nearest else ""


def _rest(name: str) -> str:
    """A name without what all of its kind begin with, which makes any two of them look alike."""
    return _PREFIX.sub("", name, count=1)


def speak_any(stream: TextIO) -> None:
    """Where a terminal's encoding (latin-1, ascii) lacks a character, it shows ? instead of a traceback."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
