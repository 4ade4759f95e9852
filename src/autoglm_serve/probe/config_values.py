"""Reading numbers out of a config that anybody may have written: what is there must mean something.

Knows no key. `Meaningless` is caught where the config's name is known.
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

LARGEST_NUMBER = 2**31 - 1
MOST_LAYERS = 10_000


class Meaningless(ValueError):
    """A value that cannot be what its key says."""


class Lacking(ValueError):
    """A size that is nowhere: not in the config, not in the headers, not a default of its class."""


def within(source: Config, *keys: str) -> Config:
    """The first of these objects that is there; empty where none is."""
    return next((found for key in keys if isinstance(found := source.get(key), dict) and found), {})


def whole(source: Config, *keys: str, default: int, most: int = LARGEST_NUMBER) -> int:
    """The first of these numbers that is there and not 0; a list of sides counts as its first."""
    for key in keys:
        value = source.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if not value:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise Meaningless(f"{key} is {str(value)[:40]!r}")
        return value
    return default


def words(source: Config, key: str, most: int = MOST_LAYERS) -> tuple[str, ...]:
    """A list of words under a key; empty where there is none."""
    value = source.get(key)
    if not isinstance(value, list):
        return ()
    if len(value) > most or not all(isinstance(word, str) for word in value):
        raise Meaningless(f"{key} is {str(value)[:40]!r}")
    return tuple(value)


def architecture(config: Config) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "unknown"
