"""Answers as Ollama tells them, event by event."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from autoglm_serve.gateway.ollama.answer import Telling
from autoglm_serve.gateway.ollama.question import Form, Translation
from autoglm_serve.gateway.wire.sse import DONE, event


class Clock:
    now_s = 10.0

    def __call__(self) -> float:
        return self.now_s


def telling(form: Form = Form.CHAT, clock: Clock | None = None) -> Telling:
    return Telling(
        question=Translation(form=form, model="m"),
        begun_s=9.0,
        clock=clock or Clock(),
        wall=lambda: datetime(2026, 11, 28, 1, 2, 3, tzinfo=UTC),
    )


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    return event(orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def told(teller: Telling, *events: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for each in events for line in teller.lines(each).splitlines()]


def test_pieces_of_a_tool_call_are_told_whole_before_the_end() -> None:
    def call(index: int, **function: str) -> bytes:
        return chunk(tool_calls=[{"index": index, "id": f"c{index}", "function": function}])

    events = (
        call(0, name="tap", arguments='{"x"'),
        call(1, name="back", arguments=""),
        call(0, arguments=": 1}"),
        chunk("tool_calls"),
        event(DONE),
    )
    calls, last = told(telling(), *events)
    assert [each["function"] for each in calls["message"]["tool_calls"]] == [
        {"name": "tap", "arguments": {"x": 1}},
        {"name": "back", "arguments": {}},
    ]
    assert (last["done"], last["done_reason"]) == (True, "stop")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_has_its_place(field: str) -> None:
    thought, said = told(telling(), chunk(**{field: "hm"}), chunk(content="yes"))
    assert (thought["message"]["thinking"], said["message"]["content"]) == ("hm", "yes")


def test_a_sign_of_life_is_an_empty_piece_and_a_role_none() -> None:
    teller = telling()
    assert told(teller, chunk(role="assistant", content="")) == []
    [alive] = told(teller, b": waiting\n\n")
    assert (alive["message"], alive["done"]) == ({"role": "assistant", "content": ""}, False)
    assert alive["created_at"] == "2026-11-28T01:02:03Z"


def test_times_and_counts_are_those_of_the_stream() -> None:
    clock = Clock()
    teller = telling(clock=clock)
    told(teller, chunk(content="a"))
    clock.now_s = 13.0
    usage = event(orjson.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}))
    [last] = told(teller, chunk("length"), usage, event(DONE))
    assert (last["prompt_eval_count"], last["eval_count"], last["done_reason"]) == (5, 2, "length")
    seconds = [last[name] / 1e9 for name in ("prompt_eval_duration", "eval_duration", "total_duration")]
    assert seconds == [1.0, 3.0, 4.0]


def test_an_error_is_the_last_line() -> None:
    teller = telling()
    error = event(b'{"error": {"message": "gone", "code": "x"}}')
    assert told(teller, chunk(content="a"), error + event(DONE))[1:] == [{"error": "gone"}]
    assert teller.end() == b""


def test_a_stream_without_done_has_its_last_line_all_the_same() -> None:
    teller = telling(Form.GENERATE)
    [piece] = told(teller, event(b'{"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}'))
    assert piece["response"] == "a"
    assert orjson.loads(teller.end())["done"]
    assert teller.end() == b""


def test_embeddings_in_both_forms() -> None:
    body = orjson.dumps({"data": [{"embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 3}})
    many = orjson.loads(telling(Form.EMBED).whole(body))
    assert (many["embeddings"], many["prompt_eval_count"]) == ([[1.0, 2.0]], 3)
    assert orjson.loads(telling(Form.EMBEDDING).whole(body)) == {"embedding": [1.0, 2.0]}


def test_arguments_that_are_no_json_are_told_as_they_were_written() -> None:
    call = {"function": {"name": "tap", "arguments": "x="}}
    body = orjson.dumps({"choices": [{"message": {"content": None, "tool_calls": [call]}}]})
    said = orjson.loads(telling().whole(body))["message"]
    assert said["tool_calls"][0]["function"]["arguments"] == {"": "x="}
