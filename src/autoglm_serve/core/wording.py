"""Words for a person who mistyped something."""

import difflib
from collections.abc import Iterable

_NEAR = 0.62
"""By difflib's ratio. At its own 0.6, --api-key is nearest to --wait-ready-s."""


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """ " Did you mean X?" with the nearest of `right`, or nothing where none is near."""
    nearest = difflib.get_close_matches(wrong, list(right), n=1, cutoff=_NEAR)
    return f" Did you mean {nearest[0]}?" if nearest else ""
