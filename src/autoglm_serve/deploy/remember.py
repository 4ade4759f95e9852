"""What was decided, on disk, for the control plane that comes after this one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.config.options import Options, Section, declared
from autoglm_serve.core.codec import from_json, to_json
from autoglm_serve.core.plan import Deployment
from autoglm_serve.runtime.private_file import replace_whole


def remember(path: Path, options: Options, deployment: Deployment) -> None:
    """Write down what was decided, for the control plane that comes after this one. Raises OSError."""
    replace_whole(path, to_json(_Decided(asked=_asked(options), deployment=deployment)))


def recall(path: Path, options: Options | None) -> Deployment | None:
    """What was decided for the same options (None: for any); None where nothing was, or it cannot be read.

    While replicas run, deciding anew would find their memory taken.
    """
    try:
        decided = from_json(_Decided, path.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return decided.deployment if options is None or _same(decided.asked, options) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    asked: dict[str, str]
    """The options that it was decided by."""
    deployment: Deployment


DECISIVE = frozenset({Section.MODEL, Section.ENGINE, Section.PLAN, Section.SPEECH})


def _same(asked: Mapping[str, str], options: Options) -> bool:
    """An option that there was not when it was decided counts as it does by default."""
    before = {**_asked(Options()), **asked}
    return all(before[name] == value for name, value in _asked(options).items())


def _asked(options: Options) -> dict[str, str]:
    return {
        option.name: str(getattr(options, option.name))
        for option in declared()
        if option.doc.section in DECISIVE
    }
