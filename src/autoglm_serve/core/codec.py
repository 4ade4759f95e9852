"""Frozen values from plain ones, as JSON gives them. The way there is orjson, which knows dataclasses.

What a newer version says beyond what is known here is passed over; what is missing is the field's default.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_plain(kind: type[T], plain: Any) -> T:
    """The value of this kind: a dataclass of dataclasses, enums, tuples, sets and mappings.

    Raises ValueError, KeyError or TypeError for what is none.
    """
    value: T = _decoded(kind, plain)
    return value


def _decoded(kind: Any, plain: Any) -> Any:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return (
            None if plain is None else _decoded(next(each for each in inside if each is not NoneType), plain)
        )
    if origin is tuple:
        return _tuple(inside, plain)
    if origin is frozenset:
        return frozenset(_decoded(inside[0], each) for each in plain)
    if origin in (dict, Mapping):
        return {key: _decoded(inside[1], each) for key, each in plain.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        known = {each.name for each in fields(kind)} & plain.keys()
        return kind(**{name: _decoded(hints[name], plain[name]) for name in known})
    return kind(plain) if isinstance(kind, type) and issubclass(kind, Enum | Path) else plain


def _tuple(inside: tuple[Any, ...], plain: Any) -> tuple[Any, ...]:
    if inside[1:] == (...,):
        return tuple(_decoded(inside[0], each) for each in plain)
    return tuple(_decoded(each, item) for each, item in zip(inside, plain, strict=True))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
