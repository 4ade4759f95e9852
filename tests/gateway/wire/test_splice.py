"""Edits of JSON as bytes, against a parser that reads the whole of it."""

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.splice import edited, find_value, slot, with_field

TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ['a"b', "\\", '\\"', "}{][", "model", "mod\u0065l", "," * 3, ":", "\u2028"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SPACE = st.text(" \t\r\n", max_size=2)


@st.composite
def objects(draw: st.DrawFn) -> str:
    """An object as somebody might write it: any white space, escapes, the same key twice."""

    def written(value: object) -> str:
        dumped = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        return draw(SPACE) + dumped + draw(SPACE)

    members = draw(st.lists(st.tuples(TEXT, VALUES), max_size=5))
    return draw(SPACE) + "{" + ",".join(written(k) + ":" + written(v) for k, v in members) + draw(SPACE) + "}"


@given(objects(), TEXT)
def test_a_value_is_found_where_the_parser_reads_it(text: str, name: str) -> None:
    body = text.encode()
    span = find_value(body, name)
    assert (span is not None) == (name in orjson.loads(body))
    for key, value in orjson.loads(body).items():
        found = find_value(body, key)
        assert found is not None
        assert orjson.loads(body[slice(*found)]) == value
        assert body[slice(*found)].strip() == body[slice(*found)]


@given(objects(), TEXT, VALUES)
def test_only_the_named_field_changes(text: str, name: str, value: object) -> None:
    body = text.encode()
    edited = with_field(body, name, value)
    assert orjson.loads(edited) == {**orjson.loads(body), name: value}
    span = find_value(body, name)
    if span is not None:
        assert edited == body[: span[0]] + orjson.dumps(value) + body[span[1] :]
    else:
        kept = body[body.index(b"{") + 1 :]
        assert edited.endswith(kept)


def test_a_key_below_the_top_is_not_meant() -> None:
    body = b'{"a":{"model":"inner"},"messages":[{"model":1}]}'
    assert find_value(body, "model") is None
    assert orjson.loads(with_field(body, "model", "outer"))["a"] == {"model": "inner"}


def test_a_repeated_key_means_its_last_value_as_parsers_do() -> None:
    assert with_field(b'{"model":"a","model":"b"}', "model", "c") == b'{"model":"a","model":"c"}'


def _paths(value: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value below this one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, each in inner for path in ((*here, key), *_paths(each, (*here, key)))]


@given(objects(), st.data())
def test_many_edits_are_one_pass_and_change_nothing_else(text: str, data: st.DataObject) -> None:
    body = text.encode()
    value = orjson.loads(body)
    paths = _paths(value)
    chosen = data.draw(st.lists(st.sampled_from(paths), unique=True, max_size=4)) if paths else []
    chosen = [
        path for path in chosen if not any(path != other and path == other[: len(path)] for other in chosen)
    ]
    new = edited(body, dict.fromkeys(chosen, "new"))
    for path in chosen:
        inside = value
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = "new"
    assert orjson.loads(new) == value


@given(objects(), VALUES)
def test_a_slot_is_filled_without_copying_the_rest(text: str, value: object) -> None:
    body = text.encode()
    for name in (*orjson.loads(body), "not there"):
        pieces = slot(body, name).filled(body, orjson.dumps(value))
        assert b"".join(pieces) == with_field(body, name, value)


@pytest.mark.parametrize(
    "value",
    [
        b" " * (8 << 20) + b"1",
        b"1" * (8 << 20),
        b'"' + b"\\\\" * (8 << 20) + b'"',
        b'"' + b'\\"' * (8 << 20) + b'"',
        b'"' + b"x" * (8 << 20) + b'\\n"',
        b"[" + b" " * (8 << 20) + b"]",
        b"[" * 500 + b" " * (8 << 20) + b"]" * 500,
        b'["' + b"\\\\" * (8 << 20) + b'"]',
    ],
)
def test_what_is_long_is_passed_over_without_a_step_for_each_byte(value: bytes) -> None:
    body = b'{"a":' + value + b',"model":"x"}'
    begun_s = time.process_time()
    assert find_value(body, "model") == (len(body) - 4, len(body) - 1)
    assert time.process_time() - begun_s < 1.0
