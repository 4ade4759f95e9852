"""What shows that an answer is none, in events and in replies of one piece."""

from typing import Any

import orjson
import pytest

from autoglm_serve.gateway.recovery.answer import Expected, before_failure, failure_of_whole, is_failed

PIECE = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n'
DEATH = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
DONE = b"data: [DONE]\n\n"
CHAT = Expected(ends_with_done=True, field="choices")


def event(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_error_event_is_cut_off_whole(line_end: bytes) -> None:
    def written(events: bytes) -> bytes:
        return events.replace(b"\n", line_end)

    passed, failure = before_failure(written(PIECE + b"event: error\n" + DEATH + DONE))
    assert passed == written(PIECE)
    assert failure is not None
    assert "EngineCore died" in failure.reason
    assert not failure.leaving


@pytest.mark.parametrize(
    "events",
    [
        PIECE,
        b'data: {"error":null,"choices":[]}\n\n',
        b'data: {"choices":[{"delta":{"content":"data: {\\"error\\": {"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"abort"},"finish_reason":"stop"}]}\n\n',
        event({"type": "response.output_item.done", "item": {"status": "failed", "error": "x"}}),
        event({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_tokens"}}}),
        b": error: none\n\n",
    ],
)
def test_talk_of_errors_is_no_error(events: bytes) -> None:
    assert before_failure(events) == (events, None)


@pytest.mark.parametrize(
    "telling",
    [
        DEATH,
        event({"object": "error", "message": "old vLLM", "code": 500}),
        event({"object": "error", "error": {"message": "not the first key"}}),
        event({"id": "x", "choices": [], "error": {"message": "beside choices"}}),
        event({"error": "words"}),
        b'data: {\ndata:   "error": {"message": "on two lines"}}\n\n',
        b'error: {"code":500,"message":"old llama.cpp"}\n\n',
        b"event: error\n" + event({"type": "error", "error": {"type": "api_error"}}),
        event({"type": "error", "message": "responses"}),
        event({"type": "response.failed", "response": {}}),
    ],
)
def test_an_engine_has_many_ways_to_say_that_it_failed(telling: bytes) -> None:
    passed, failure = before_failure(PIECE + telling + DONE)
    assert passed == PIECE
    assert failure is not None


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize(
    "said",
    [
        lambda why: {"choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": why}]},
        lambda why: {"choices": [{"index": 0, "text": "", "finish_reason": why}]},
        lambda why: {"type": "message_delta", "delta": {"stop_reason": why}},
        lambda why: {"type": "response.incomplete", "response": {"incomplete_details": {"reason": why}}},
        lambda why: {"type": "response.completed", "response": {"status": "cancelled", "error": why}},
    ],
)
def test_what_an_engine_gives_up_is_lost_and_the_engine_leaves(said: Any, reason: str) -> None:
    passed, failure = before_failure(PIECE + event(said(reason)))
    assert passed == PIECE
    assert failure is not None
    assert failure.leaving


@pytest.mark.parametrize("field", ["choices", "", None])
def test_only_what_the_endpoint_answers_is_an_answer(field: str | None) -> None:
    expected = Expected(field=field)
    failures = [failure_of_whole(body, expected)[0] for body in (b'{"choices":[]}', b"{}", b"[1]", b"plain")]
    counted = {"choices": 3, "": 2, None: 0}[field]
    assert sum(failure is not None for failure in failures) == counted


def test_a_status_is_an_answer_a_refusal_or_a_failure() -> None:
    assert [status for status in (200, 201, 400, 401, 404, 422, 499) if is_failed(status)] == []
    for status in (204, 205, 301, 302, 304, 307, 408, 429, 500, 502, 507, 520, 525, 599):
        assert is_failed(status)
    assert failure_of_whole(b'{"choices":[]}', CHAT)[0] is None


@pytest.mark.parametrize(
    ("ends", "whole"), [((b'"stop"',), True), ((b"null",), False), ((b"null", b'""'), False)]
)
def test_where_finish_reasons_are_given_an_answer_without_one_was_cut(
    ends: tuple[bytes, ...], whole: bool
) -> None:
    choices = b",".join(b'{"message":{"content":"x"},"finish_reason":%b}' % end for end in ends)
    body = b'{"choices":[%b]}' % choices
    assert (failure_of_whole(body, CHAT, finish_needed=True)[0] is None) is whole
    assert failure_of_whole(body, CHAT)[0] is None
