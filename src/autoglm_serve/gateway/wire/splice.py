"""Edits to a JSON object as bytes: everything that is not edited stays as the client wrote it. Pure.

A request carries its screenshot as base64; parsing it once is enough, writing it out again would cost as
much as all the rest. The scanner trusts that the body has been parsed already: it finds, it does not check.
"""

import re

import orjson

_STRUCTURE = re.compile(rb'["{}\[\]]')
_SPACE = b" \t\r\n"


def with_field(body: bytes, name: str, value: object) -> bytes:
    """`body`, a JSON object, with the top-level field `name` set to `value`."""
    new = orjson.dumps(value)
    span = find_value(body, name)
    if span is not None:
        return body[: span[0]] + new + body[span[1] :]
    start = body.index(b"{") + 1
    comma = b"" if body[start:].lstrip(_SPACE).startswith(b"}") else b","
    return body[:start] + orjson.dumps(name) + b":" + new + comma + body[start:]


def find_value(body: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of the top-level field `name` starts and ends; the last one, if it is repeated."""
    found = None
    at = body.index(b"{") + 1
    while True:
        quote = _skip_space(body, at)
        if body[quote : quote + 1] != b'"':
            return found
        key_end = _string_end(body, quote)
        start = _skip_space(body, _skip_space(body, key_end) + 1)
        end = _value_end(body, start)
        if orjson.loads(body[quote:key_end]) == name:
            found = (start, end)
        at = _skip_space(body, end) + 1  # over the comma


def _skip_space(body: bytes, at: int) -> int:
    while body[at : at + 1] and body[at] in _SPACE:
        at += 1
    return at


def _string_end(body: bytes, quote: int) -> int:
    """The index behind the string that starts at `quote`."""
    at = quote + 1
    while True:
        at = body.index(b'"', at)
        backslashes = 0
        while body[at - 1 - backslashes] == 0x5C:
            backslashes += 1
        at += 1
        if backslashes % 2 == 0:
            return at


def _value_end(body: bytes, start: int) -> int:
    """The index behind the value that starts at `start`."""
    first = body[start : start + 1]
    if first == b'"':
        return _string_end(body, start)
    if first not in (b"{", b"["):
        end = start
        while body[end : end + 1] not in (b",", b"}", b"]", b""):
            end += 1
        return len(body[:end].rstrip(_SPACE)) if body[end - 1] in _SPACE else end
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
