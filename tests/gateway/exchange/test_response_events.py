"""Events of a response as llama.cpp writes them, read by the schema of OpenAI's own client."""

from typing import Any

import orjson
import pytest
from openai.types import responses
from pydantic import BaseModel

from autoglm_serve.gateway.exchange.response_events import ResponseFiller
from autoglm_serve.gateway.wire import sse

SCHEMAS: dict[str, type[BaseModel]] = {
    "response.created": responses.ResponseCreatedEvent,
    "response.in_progress": responses.ResponseInProgressEvent,
    "response.output_item.added": responses.ResponseOutputItemAddedEvent,
    "response.content_part.added": responses.ResponseContentPartAddedEvent,
    "response.output_text.delta": responses.ResponseTextDeltaEvent,
    "response.output_text.done": responses.ResponseTextDoneEvent,
    "response.content_part.done": responses.ResponseContentPartDoneEvent,
    "response.output_item.done": responses.ResponseOutputItemDoneEvent,
    "response.function_call_arguments.delta": responses.ResponseFunctionCallArgumentsDeltaEvent,
    "response.completed": responses.ResponseCompletedEvent,
}
ITEM = {"id": "msg_1", "role": "assistant", "type": "message"}
PART = {"type": "output_text", "text": ""}
SAID = [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello!"}]
USAGE = {
    "input_tokens": 7,
    "output_tokens": 2,
    "total_tokens": 9,
    "input_tokens_details": {"cached_tokens": 6},
}
BEGUN = {"id": "resp_1", "object": "response", "status": "in_progress"}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "tap", "arguments": ""}
LLAMA: list[dict[str, Any]] = [
    {"type": "response.created", "response": BEGUN},
    {"type": "response.in_progress", "response": BEGUN},
    {"type": "response.output_item.added", "item": {**ITEM, "content": [], "status": "in_progress"}},
    {"type": "response.content_part.added", "item_id": "msg_1", "part": PART},
    {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hello"},
    {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "!"},
    {"type": "response.output_text.done", "item_id": "msg_1", "text": "Hello!"},
    {"type": "response.content_part.done", "item_id": "msg_1", "part": SAID[0]},
    {"type": "response.output_item.done", "item": {**ITEM, "content": SAID, "status": "completed"}},
    {"type": "response.output_item.added", "item": CALL},
    {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": "{}"},
    {
        "type": "response.completed",
        "response": {
            **BEGUN,
            "created_at": 5,
            "status": "completed",
            "model": "demo",
            "output": [{**ITEM, "content": SAID, "status": "completed"}],
            "usage": USAGE,
        },
    },
]


def written(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), orjson.dumps(e)) for e in events)


def filled(*pieces: bytes) -> list[dict[str, Any]]:
    filler = ResponseFiller(model="asked", created_s=9)
    return [orjson.loads(data) for data in sse.data_of(b"".join(map(filler.feed, pieces)))]


@pytest.mark.parametrize("together", [True, False])
def test_every_event_is_one_that_the_client_knows(together: bool) -> None:
    pieces = [written(LLAMA)] if together else [written([each]) for each in LLAMA]
    events = filled(*pieces)
    for event in events:
        SCHEMAS[event["type"]].model_validate(event)
    assert [event["sequence_number"] for event in events] == list(range(len(LLAMA)))
    assert [event["type"] for event in events] == [event["type"] for event in LLAMA]
    assert events[0]["response"]["model"] == "asked"
    assert events[0]["response"]["output"] == []
    assert events[-1]["response"]["model"] == "demo"  # what the engine says is kept
    assert events[4]["output_index"] == events[4]["content_index"] == 0
    assert events[10]["output_index"] == 1


def test_what_is_complete_is_not_touched() -> None:
    whole = written(
        [
            {
                **LLAMA[0],
                "sequence_number": 0,
                "response": {**BEGUN, "model": "x", "created_at": 1, "output": []},
            },
            {"type": "odd"},
        ]
    )
    assert ResponseFiller(model="asked", created_s=9).feed(whole) == whole


def test_a_comment_decides_nothing() -> None:
    filler = ResponseFiller(model="asked", created_s=9)
    filler.feed(b": ping\n\n")
    assert b'"sequence_number":0' in filler.feed(written(LLAMA[:1]))


@pytest.mark.parametrize("odd", [b"data: [DONE]\n\n", b"data: 7\n\n", b'data: {"type":7}\n\n'])
def test_what_is_no_event_of_a_response_passes(odd: bytes) -> None:
    filler = ResponseFiller(model="asked", created_s=9)
    filler.feed(written(LLAMA[:1]))
    assert filler.feed(odd) == odd
