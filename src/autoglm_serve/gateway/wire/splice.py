"""Edits to a JSON object as bytes: everything that is not edited stays as the client wrote it. Pure.

A request carries its screenshot as base64; parsing it once is enough, writing it out again would cost as
much as all the rest. The scanner trusts that the body has been parsed already: it finds, it does not check.
It passes over a value once, and over what is long in C: no byte of a body costs a step of Python.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson

Span = tuple[int, int]
Path = tuple[str | int, ...]
"""Of a value: field names and indices, from the top."""

_STRUCTURE = re.compile(rb'["{}\[\]]')
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[^,\]} \t\r\n]*+")
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SLICE_BYTES = 1 << 20
_STRING_SLICE_BYTES = 128 * 1024  # of one that is all escapes, matched in 4 ms


def with_field(body: bytes, name: str, value: object) -> bytes:
    """`body`, a JSON object, with the top-level field `name` set to `value`."""
    new, place = orjson.dumps(value), slot(body, name)
    return _assembled(body, [((place.start, place.end), place.before + new + place.after)])


def edited(body: bytes, edits: Mapping[Path, object]) -> bytes:
    """`body`, a JSON object, with other values where the paths lead. One pass, however many they are."""
    spans = list(_located(body, body.index(b"{"), _tree(edits)))
    return _assembled(body, [(span, orjson.dumps(value)) for span, value in sorted(spans, key=_start)])


def find_value(body: bytes, name: str) -> Span | None:
    """Where the value of the top-level field `name` starts and ends; the last one, if it is repeated."""
    found = None
    for key, span in _members(body, body.index(b"{")):
        if key == name:
            found = span
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where in a body a value is to stand, and what has to stand around it. Found once, filled often."""

    start: int
    end: int
    before: bytes = b""
    after: bytes = b""

    def filled(self, body: bytes, value: bytes) -> tuple[bytes | memoryview, ...]:
        """`body` with `value` there, in pieces that share its memory."""
        whole = memoryview(body)
        return whole[: self.start], self.before + value + self.after, whole[self.end :]


def slot(body: bytes, name: str) -> Slot:
    """For the top-level field `name` of the JSON object `body`."""
    span = find_value(body, name)
    if span is not None:
        return Slot(start=span[0], end=span[1])
    start = body.index(b"{") + 1
    comma = b"" if body.startswith(b"}", _skip_space(body, start)) else b","
    return Slot(start=start, end=start, before=orjson.dumps(name) + b":", after=comma)


def _start(located: tuple[Span, object]) -> int:
    return located[0][0]


def _assembled(body: bytes, edits: list[tuple[Span, bytes]]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    for (start, end), new in edits:
        pieces += (*_slices(body, at, start), new)
        at = end
    pieces += _slices(body, at, len(body))
    return b"".join(pieces)


def _slices(body: bytes, start: int, end: int) -> Iterator[bytes]:
    """A stretch of the body, cut so that no copy is long; other threads run while bytes are joined."""
    return (body[at : min(at + _SLICE_BYTES, end)] for at in range(start, end, _SLICE_BYTES))


class _Leaf:
    """The end of a path, and the value for it."""

    def __init__(self, value: object) -> None:
        self.value = value


_Tree = dict[str | int, "_Tree | _Leaf"]


def _tree(edits: Mapping[Path, object]) -> _Tree:
    root: _Tree = {}
    for path, value in edits.items():
        at = root
        for step in path[:-1]:
            inner = at.setdefault(step, {})
            assert isinstance(inner, dict), "one edit lies inside another"
            at = inner
        at[path[-1]] = _Leaf(value)
    return root


def _located(body: bytes, start: int, tree: _Tree) -> list[tuple[Span, object]]:
    """The spans that the tree's leaves have in the container at `start`; of a repeated key the last."""
    found: dict[str | int, list[tuple[Span, object]]] = {}
    inside = _members(body, start) if body.startswith(b"{", start) else _elements(body, start)
    for key, span in inside:
        match tree.get(key):
            case _Leaf(value=value):
                found[key] = [(span, value)]
            case dict() as inner if body[span[0]] in b"{[":
                found[key] = _located(body, span[0], inner)
            case _:
                pass
    return [each for spans in found.values() for each in spans]


def _members(body: bytes, start: int) -> Iterator[tuple[str, Span]]:
    """Name and span of each value in the object that starts at `start`."""
    at = start + 1
    while True:
        quote = _skip_space(body, at)
        if not body.startswith(b'"', quote):
            return
        key_end = _string_end(body, quote)
        value = _skip_space(body, _skip_space(body, key_end) + 1)
        end = _value_end(body, value)
        yield orjson.loads(body[quote:key_end]), (value, end)
        at = _skip_space(body, end) + 1  # over the comma


def _elements(body: bytes, start: int) -> Iterator[tuple[int, Span]]:
    """Index and span of each value in the array that starts at `start`."""
    at, index = start + 1, 0
    while True:
        value = _skip_space(body, at)
        if body.startswith(b"]", value):
            return
        end = _value_end(body, value)
        yield index, (value, end)
        at = _skip_space(body, end)
        if not body.startswith(b",", at):
            return
        at, index = at + 1, index + 1


def _skip_space(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _string_end(body: bytes, quote: int) -> int:
    """The index behind the string that starts at `quote`."""
    end = body.index(b'"', quote + 1)
    escape = body.find(b"\\", quote + 1, end)
    if escape < 0:
        return end + 1
    at = escape
    while True:
        match = _IN_STRING.match(body, at, at + _STRING_SLICE_BYTES)
        assert match is not None
        at = match.end()
        if body.startswith(b'"', at):
            return at + 1


def _value_end(body: bytes, start: int) -> int:
    """The index behind the value that starts at `start`."""
    first = body[start : start + 1]
    if first == b'"':
        return _string_end(body, start)
    if first not in (b"{", b"["):
        match = _SCALAR.match(body, start)
        return match.end() if match else start
    depth, at = 0, start
    while True:
        match = _STRUCTURE.search(body, at)
        assert match is not None, "the body was parsed before"
        at = match.end()
        match match.group():
            case b'"':
                at = _string_end(body, at - 1)
            case b"{" | b"[":
                depth += 1
            case _:
                depth -= 1
                if depth == 0:
                    return at
