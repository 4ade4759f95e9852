"""Bodies as values: what is read is what a parser reads, within bounds that are named."""

import base64
import json
import os
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import (
    MAX_SHORT_TEXT_BYTES,
    MAX_VALUES,
    LongText,
    is_light_json,
    parse_object,
)

MIB = 1 << 20
FILL = b'"fill":"' + b"x" * (9 * MIB) + b'",'
"""Makes any object one whose long strings are set aside."""


def code_of(body: bytes) -> str:
    with pytest.raises(Refusal) as refusal:
        parse_object(body)
    assert refusal.value.status == 400
    return refusal.value.code


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ['"', "\\", "\\\\", "\n", "中", "😀"]
)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=3), max_size=4), TEXTS, st.booleans())
def test_a_very_large_body_says_what_a_parser_reads_in_it(
    fields: dict[str, object], piece: str, escaped: bool
) -> None:
    long = (piece or "y") * 5000
    written = orjson.dumps(fields)[1:-1]
    text = orjson.dumps(long)
    if escaped:
        text = text.replace(b"x", b"\\u0078").replace(b"/", b"\\/")
    body = b"{" + FILL + b'"long":' + text + (b"," + written if written else b"") + b"}"
    read, whole = parse_object(body), orjson.loads(body)
    assert {name: value for name, value in read.items() if not isinstance(value, LongText)} == {
        name: value for name, value in whole.items() if name in fields
    }
    for name in ("long", "fill") if "long" not in fields and "fill" not in fields else ():
        assert whole[name].startswith(read[name])
        assert whole[name].startswith(read[name].beginning(10_000))
        assert len(read[name].beginning(10_000)) > 1000


def test_of_a_picture_set_aside_the_length_and_the_end_are_known() -> None:
    payload = base64.b64encode(os.urandom(9 * MIB)).decode()
    for written in (payload, payload.replace("/", "\\/"), payload.replace("+", "\\u002b")):
        read = parse_object(b'{"a":"%b"}' % written.encode())["a"]
        assert isinstance(read, LongText)
        assert (read.size, read.ending(4)) == (len(payload), payload[-4:])


@pytest.mark.parametrize("ending", ["a\\/fD", "\\ud83d\\ude00=", "é世=", "\\u002bAB=", "\\\\/+=", "x" * 9])
def test_escapes_and_characters_at_the_end_of_a_long_string_are_read(ending: str) -> None:
    read = parse_object(b'{"a":"%b"}' % (b"A" * (9 * MIB) + ending.encode()))["a"]
    assert isinstance(read, LongText)
    assert read.ending(4) == ("AAAA" + json.loads(f'"{ending}"'))[-4:]


def test_a_long_string_of_escapes_alone_is_not_searched_to_its_beginning() -> None:
    read = parse_object(b'{"a":"%b"}' % (b"\\n" * (5 * MIB)))["a"]
    assert isinstance(read, LongText)
    assert read.ending(4) == "\\n\\n"


@pytest.mark.parametrize(
    "text",
    [b"a\nb", b"\\x", b"\\u12g4", b"\xff", b"\xe4\xb8", b"\xed\xa0\x80", b"\x00", b"unended\\"],
)
def test_a_long_string_that_is_no_json_is_refused_as_a_short_one(text: bytes) -> None:
    for filler in (b"x" * (9 * MIB), b"\\n" * (5 * MIB)):
        assert (
            code_of(b'{"a":"' + filler + text + b'"}') == code_of(b'{"a":"' + text + b'"}') == "invalid_json"
        )


@pytest.mark.parametrize(
    "value", [b"[],", b"{},", b"1,", b'"",', b'{"a":1},', b"[[[]]],", b'{"a":[{}]},', b"[[1,2],3],"]
)
def test_as_many_values_are_read_as_is_said(value: bytes) -> None:
    marks = sum(value.count(mark) for mark in (b",", b"[", b"{"))
    fits = (MAX_VALUES - 3) // marks
    assert parse_object(b'{"a":[' + (value * fits)[:-1] + b"]}")
    assert code_of(b'{"a":[' + (value * (fits + 2))[:-1] + b"]}") == "too_many_values"


def test_what_is_light_is_light_whatever_it_is() -> None:
    for value in (b"[],", b'{"a":1},', b'"\\u4e2d",', b"1e5,"):
        for size in (1000, 60_000, 200_000, 5 * MIB):
            body = b'{"a":[' + value * (size // len(value)) + b"1]}"
            if is_light_json(body):
                begun_s = time.process_time()
                parse_object(body)
                assert time.process_time() - begun_s < 0.3
    assert is_light_json(b'{"a":"' + b"x" * (2 * MIB) + b'"}')
    assert not is_light_json(b'{"a":"' + b"x" * (5 * MIB) + b'"}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b'""' * (30 * MIB) + b"}",
        b'{"a":"' + b'\\"' * (30 * MIB) + b'"}',
        b'{"a":"' + b"\\" * (60 * MIB) + b'"}',
        b'{"a":' + b" " * (60 * MIB) + b"1}",
        b'{"a":' + b"1" * (60 * MIB) + b"}",
        b'{"a":"' + b"1" * (60 * MIB),
        b'{"a":' + b"[" * (60 * MIB),
        b'{"a":[' + b",".join([b'"' + b"x" * 4000 + b'"'] * 15_000) + b"]}",
        b'{"a":[' + b",".join([b'"' + b"x" * 5000 + b'"'] * 12_000) + b"]}",
    ],
    ids=range(9),
)
def test_the_largest_body_takes_about_a_second_whatever_is_in_it(body: bytes) -> None:
    begun_s = time.process_time()
    try:
        parse_object(body)
    except Refusal as refusal:
        assert refusal.code in ("invalid_json", "too_many_values", "too_much_text")  # noqa: PT017
    assert time.process_time() - begun_s < 4.0


def test_short_text_of_a_very_large_body_is_bounded() -> None:
    strings = MAX_SHORT_TEXT_BYTES // 4003
    body = b'{"a":["' + b'","'.join([b"x" * 4000] * strings) + b'"]}'
    assert len(parse_object(body)["a"]) == strings
    assert code_of(body.replace(b'["', b'["' + b"x" * 4000 + b'","', 1)) == "too_much_text"
