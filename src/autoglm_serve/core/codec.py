"""Frozen values as JSON and back: dataclasses of dataclasses, enums, paths, tuples, sets and mappings.

What another version wrote is read by these rules, whatever it is: a record, a decision, a fleet view, a
status. What it says beyond what is known here is passed over, and what it does not say is the field's
default. Anything else is refused and not guessed at.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

T = TypeVar("T")

_Reader = Callable[[Any], Any]


def to_json(value: object) -> bytes:
    """The value on one line, without a newline. Sets are in order, so that equal values are equal bytes."""
    return orjson.dumps(value, default=_plain)


def from_json(kind: type[T], data: bytes | str) -> T:
    """The inverse of `to_json`. Raises ValueError or TypeError for what is no such value."""
    return from_plain(kind, orjson.loads(data))


def from_plain(kind: type[T], plain: Any) -> T:
    """The same from what JSON was parsed to already."""
    hashable: Any = kind
    value: T = _reader(hashable)(plain)
    return value


def _plain(value: object) -> object:
    match value:
        case frozenset():
            return sorted(value)
        case Mapping():
            return dict(value)
        case Path():
            return str(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


@cache
def _reader(kind: Any) -> _Reader:
    """How a value of this kind is read; made once, for a view may have a thousand of them."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        read = _reader(next(each for each in inside if each is not NoneType))
        return lambda plain: None if plain is None else read(plain)
    if origin is tuple:
        return _many(inside[0]) if inside[1:] == (...,) else _each_its_own(inside)
    if origin is frozenset:
        return _set_of(inside[0])
    if origin in (dict, Mapping):
        value = _reader(inside[1])
        return lambda plain: {key: value(each) for key, each in _object(plain).items()}
    if is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind
    return _scalar(kind)


def _many(kind: Any) -> _Reader:
    read = _reader(kind)
    return lambda plain: tuple(map(read, _list(plain)))


def _each_its_own(kinds: tuple[Any, ...]) -> _Reader:
    readers = tuple(map(_reader, kinds))
    return lambda plain: tuple(read(each) for read, each in zip(readers, _list(plain), strict=True))


def _set_of(kind: Any) -> _Reader:
    """Of words, those that are known here."""
    read = _reader(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = {each.value for each in kind}
        return lambda plain: frozenset(read(each) for each in _list(plain) if each in known)
    return lambda plain: frozenset(map(read, _list(plain)))


def _dataclass(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    readers = {each.name: _reader(hints[each.name]) for each in fields(kind)}
    needed = {
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    }

    def read(plain: Any) -> Any:
        if not needed <= _object(plain).keys():
            raise ValueError(f"a {kind.__name__} says {', '.join(sorted(needed - plain.keys()))} too")
        return kind(**{name: readers[name](each) for name, each in plain.items() if name in readers})

    return read


def _scalar(kind: Any) -> _Reader:
    """What others write as a whole number may be a float that happens to be one; no other kind is another."""
    if kind in (Any, object):
        return lambda plain: plain
    kinds = frozenset({float, int} if kind is float else {kind})

    def read(plain: Any) -> Any:
        if type(plain) not in kinds:
            raise TypeError(f"{plain!r} is no {kind.__name__}")
        return kind(plain)

    return read


def _list(plain: Any) -> list[Any]:
    if not isinstance(plain, list):
        raise TypeError(f"{plain!r} is no list")
    return plain


def _object(plain: Any) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise TypeError(f"{plain!r} is no object")
    return plain
