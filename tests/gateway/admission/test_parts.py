"""The content of a request: every object in it is found, none twice, none at any cost."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.parts import MAX_DEPTH, MAX_PARTS, parts, written

KEYS = st.sampled_from(["content", "output", "image_url", "type", "arguments", "x"])
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def _naive(value: Any, where: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        inner = [(f"{where}.{key}", each) for key, each in value.items() if key != "arguments"]
        return [(where, value), *(found for path, each in inner for found in _naive(each, path))]
    if isinstance(value, list):
        return [found for index, each in enumerate(value) for found in _naive(each, f"{where}[{index}]")]
    return []


@given(VALUES, VALUES)
def test_all_objects_of_the_content_are_found_in_order(messages: Any, system: Any) -> None:
    body = {"system": system, "tools": [{"url": "x"}], "messages": messages}
    found = [(str(part), part.value) for part in parts(body)]
    everything = [*_naive(system, "system"), *_naive(messages, "messages")]
    assert found == [each for each in everything if each in found]
    for where, value in everything:  # what is left out is nothing but text
        assert (where, value) in found or all(isinstance(inner, str) for inner in value.values())


def test_the_arguments_of_a_tool_are_no_content() -> None:
    call = {"type": "tool_use", "name": "open", "input": {"url": "http://example.com"}}
    assert [str(part) for part in parts({"messages": [{"content": [call]}]})] == [
        "messages[0]",
        "messages[0].content[0]",
    ]


def test_depth_and_number_are_bounded() -> None:
    for depth, code in ((MAX_DEPTH, ""), (MAX_DEPTH + 1, "too_deep"), (900, "too_deep")):
        body: Any = {"x": 1}
        for _ in range(depth - 2):
            body = [body]
        assert _refusal({"input": [body]}) == code
    for item in ({"x": 1}, {"type": "text", "text": "x"}):
        assert _refusal({"input": [item] * MAX_PARTS}) == ""
        assert _refusal({"input": [item] * (MAX_PARTS + 1), "system": [{"x": 1}]}) == "too_many_parts"


def _refusal(body: Any) -> str:
    try:
        list(parts(body))
    except Refusal as refusal:
        return refusal.code
    return ""


def test_many_parts_below_a_long_way_cost_no_more_than_elsewhere() -> None:
    inner: Any = [{"type": "x"}] * (MAX_PARTS - 10)
    for _ in range(8):
        inner = [{"type": "x", "content": inner}]
    begun_s = time.process_time()
    assert len(list(parts({"messages": inner}))) == MAX_PARTS - 2
    assert time.process_time() - begun_s < 0.5


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("messages", 0, "content", 12, "image_url", "url"), "messages[0].content[12].image_url.url"),
        (("input",), "input"),
    ],
)
def test_a_path_is_written_as_people_write_it(path: tuple[str | int, ...], name: str) -> None:
    assert written(path) == name
