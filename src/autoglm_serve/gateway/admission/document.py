"""A JSON body as values, within bounds: how much of it there is, and how it is read. Pure.

A parser holds the interpreter while it reads. So there are bounds on how many values a body may have, and of
a very large body the long strings are set aside, checked a slice at a time, and only what remains is parsed.
Whoever reads a body that is not `is_light_json` does so in another thread; no single step here takes long.
"""

import codecs
import re
import secrets
from collections.abc import Iterator
from typing import Any, NoReturn, cast

import orjson

from autoglm_serve.core.refusal import Refusal

Json = dict[str, Any]

MAX_VALUES = 200_000
"""Commas and opening brackets of a body, which its values cannot outnumber. The worst of them, brackets,
take a parser 20 ms, in which nothing else runs."""
MAX_SHORT_TEXT_BYTES = 16 << 20
"""Of a body, without its long strings: pictures, sound and documents are long strings."""

_PLAIN_BYTES = 64 * 1024  # whatever is in it, it is read in 2 ms
_LIGHT_BYTES = 4 << 20
_LIGHT_VALUES = 20_000
_WHOLE_BYTES = 8 << 20  # a larger body is not parsed as it is
_LONG_BYTES = 4096  # a string of more is set aside then
_SLICE_BYTES = 128 * 1024  # of a string that is all escapes, matched in 4 ms, in which nothing else runs
_STRIDE_BYTES = 4 << 20
_FEW = 2000

_IN_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')

_NAME = re.compile(rb"[ \t\r\n]*+:")

_LONGEST_ESCAPE, _LONGEST_PAIR = 6, 12  # \\u0000, and two of them that stand for one character
_MOST_BACK = 1_000


class LongText(str):
    """A long string of a very large body: its beginning, and where the rest is.

    It passes for its beginning, so what depends on more has to ask.
    """

    body: bytes
    start: int
    end: int
    more: str = ""
    """What was added at its end; of that nothing else here knows."""

    def plus(self, more: str) -> "LongText":
        """The text with more at its end."""
        text = LongText(self)
        text.body, text.start, text.end, text.more = self.body, self.start, self.end, self.more + more
        return text

    def beginning(self, size_bytes: int) -> str:
        """At most its first `size_bytes` bytes as they stand in the body, decoded."""
        return _beginning(self.body, self.start, min(self.end, self.start + size_bytes))

    def ending(self, length: int) -> str:
        """Its last characters, escapes read; of one that is nearly all escapes, as they stand in the body."""
        start = at = max(self.start, self.end - length * _LONGEST_ESCAPE)
        while at > self.start and b"\\" in self.body[max(self.start, at - _LONGEST_PAIR) : at]:
            at -= _LONGEST_PAIR  # an escape may span this place
            if start - at > _MOST_BACK:
                return self.body[self.end - length : self.end].decode("utf-8", "replace")
        at = max(at, self.start)
        while at < self.end and self.body[at] & 0xC0 == 0x80:  # nor is a character cut in two
            at += 1
        return str(orjson.loads(b'"%b"' % self.body[at : self.end]))[-length:]

    @property
    def size(self) -> int:
        """Its length, if its escapes each stand for one character, as in base64 they do."""
        slashes = longer = 0
        for start in range(self.start, self.end, _STRIDE_BYTES):  # no escape is cut in two by counting
            end = min(start + _STRIDE_BYTES, self.end)
            slashes += self.body.count(b"\\", start, end)
            longer += self.body.count(b"\\u", start, min(end + 1, self.end)) if slashes else 0
        return self.end - self.start - slashes - 4 * longer


def is_light_json(body: bytes) -> bool:
    """It is read in a few milliseconds, whatever it is."""
    size_bytes = len(body)
    if size_bytes <= _PLAIN_BYTES:
        return True
    return size_bytes <= _LIGHT_BYTES and _values(body) <= _LIGHT_VALUES


def parse_object(body: bytes) -> Json:
    """The body as a JSON object, or a refusal that says where it breaks, or what there is too much of."""
    if len(body) > _PLAIN_BYTES and _values(body) > MAX_VALUES:
        _refuse(
            "too_many_values",
            f"The body has more than {MAX_VALUES:,} commas and brackets, the most that are read. "
            "Send less in one request.",
        )
    value = _parsed(body) if len(body) <= _WHOLE_BYTES else _parsed_aside(body)
    if not isinstance(value, dict):
        _refuse("invalid_json", f"The body must be a JSON object, not {kind_of(value)}.")
    return value


def outlined(body: bytes) -> Json:
    """The values of a body that was admitted, its long strings set aside."""
    return cast("Json", orjson.loads(body) if len(body) <= _PLAIN_BYTES else _parsed_aside(body))


def written(value: Json) -> bytes:
    """What `outlined` has read, and somebody changed, as a body again."""
    mark = secrets.token_hex(16)
    texts: list[LongText] = []

    def set_aside(text: object) -> str:
        assert isinstance(text, LongText)
        texts.append(text)
        return mark

    around = orjson.dumps(value, set_aside, orjson.OPT_PASSTHROUGH_SUBCLASS).split(b'"%b"' % mark.encode())
    pieces: list[bytes | memoryview] = [around[0]]
    for text, rest in zip(texts, around[1:], strict=True):
        more = orjson.dumps(text.more)[1:]
        pieces += (b'"', memoryview(text.body)[text.start : text.end], more, rest)
    return b"".join(pieces)


def with_more(text: str, more: str) -> str:
    """A text of a body with more at its end."""
    return text.plus(more) if isinstance(text, LongText) else text + more


def kind_of(value: object) -> str:
    """What a value is, for a person."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _parsed(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse("invalid_json", f"The body is not valid JSON: {error}.")


def _values(body: bytes) -> int:
    """No fewer than the values in the body, one in front of each comma and one in each bracket; or so many
    that it does not matter."""
    found = 1
    for start in range(0, len(body), _STRIDE_BYTES):
        found += sum(_count(body, mark, start, start + _STRIDE_BYTES) for mark in (b",", b"[", b"{"))
        if found > MAX_VALUES:
            break
    return found


def _count(body: bytes, mark: bytes, start: int, end: int) -> int:
    """As `bytes.count`, which looks at each byte, while finding passes over a picture 20 times as fast."""
    found, at = 0, body.find(mark, start, end)
    while at >= 0:
        found += 1
        if found == _FEW:
            return found + body.count(mark, at + 1, end)
        at = body.find(mark, at + 1, end)
    return found


def _parsed_aside(body: bytes) -> object:
    """As `_parsed`, with `LongText` in place of the long strings; those that are names stay as they are."""
    mark = secrets.token_hex(16)  # nobody can have written it into the body
    kept: list[bytes] = []
    aside: list[tuple[int, int]] = []
    at = kept_bytes = 0
    for start, end in (*_long_strings(body), (len(body) + 1, 0)):
        if end and _NAME.match(body, end + 1):
            continue
        kept_bytes += start - 1 - at
        if kept_bytes > MAX_SHORT_TEXT_BYTES:
            _refuse(
                "too_much_text",
                f"The body has more than {MAX_SHORT_TEXT_BYTES >> 20} MiB besides its strings of more than "
                f"{_LONG_BYTES} bytes, the most that is read. Send less in one request.",
            )
        kept.append(body[at : start - 1])
        if end:
            kept.append(b'"%b%d"' % (mark.encode(), len(aside)))
            aside.append((start, end))
        at = end + 1
    value = _parsed(b"".join(kept))
    return _with_long_texts(value, mark, [_long_text(body, start, end) for start, end in aside])


def _long_strings(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of the long strings start and end, each checked to be JSON."""
    quote, found = body.find(b'"'), 0
    while quote >= 0:
        found += 1
        if found > 2 * MAX_VALUES:
            _refuse("invalid_json", f"The body is not valid JSON: {found} strings without commas.")
        end = body.find(b'"', quote + 1, quote + _LONG_BYTES)
        if end < 0 or body.find(b"\\", quote + 1, end) >= 0:
            end = _string_end(body, quote + 1)
        if end - quote > _LONG_BYTES:
            yield quote + 1, end
        quote = body.find(b'"', end + 1)


def _string_end(body: bytes, start: int) -> int:
    """The index of the quote that ends the string that starts here."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = start
    while True:
        match = _IN_STRING.match(body, at, at + _SLICE_BYTES)
        assert match is not None
        done = match.end()
        try:
            decoder.decode(body[at:done], body.startswith(b'"', done))
        except UnicodeDecodeError:
            _refuse("invalid_json", f"The body is not valid JSON: a string is not UTF-8: byte {done}.")
        if body.startswith(b'"', done):
            return done
        if done == at:
            _refuse("invalid_json", f"The body is not valid JSON: a string breaks off at byte {done}.")
        at = done


def _long_text(body: bytes, start: int, end: int) -> LongText:
    text = LongText(_beginning(body, start, min(end, start + _LONG_BYTES)))
    text.body, text.start, text.end = body, start, end
    return text


def _beginning(body: bytes, start: int, end: int) -> str:
    match = _IN_STRING.match(body, start, end)
    assert match is not None
    end = match.end()  # no escape is cut in two, and below no character
    while end > start and end < len(body) and body[end] & 0xC0 == 0x80:
        end -= 1
    try:
        return cast("str", orjson.loads(b'"' + body[start:end] + b'"'))
    except orjson.JSONDecodeError as error:
        _refuse("invalid_json", f"The body is not valid JSON: {error}.")


def _with_long_texts(value: object, mark: str, texts: list[LongText]) -> object:
    """The value with the long texts where their marks stand."""
    waiting: list[Any] = [value] if isinstance(value, dict | list) else []
    while waiting:
        inside = waiting.pop()
        for key, each in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
            if isinstance(each, dict | list):
                waiting.append(each)
            elif isinstance(each, str) and each.startswith(mark):
                inside[key] = texts[int(each[len(mark) :])]
    return value


def _refuse(code: str, message: str) -> NoReturn:
    raise Refusal(400, code, message)
