"""Errors in the form of the API that was asked."""

import orjson
import pytest

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.wire.envelope import error_event, last_event, refusal_body

LOST = Refusal(503, "replica_lost", "It is gone.", type=RefusalType.SERVER)


def test_a_stream_that_cannot_go_on_ends_with_an_error_and_done() -> None:
    event, done, rest = error_event(LOST).split(b"\n\n")
    assert orjson.loads(event.removeprefix(b"data: "))["error"]["code"] == "replica_lost"
    assert (done, rest) == (b"data: [DONE]", b"")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_errors_of_the_messages_api_have_its_form(status: int, kind: str) -> None:
    body = orjson.loads(refusal_body(Refusal(status, "code", "why", param="messages"), "/v1/messages"))
    assert (body["type"], body["error"]["type"], body["error"]["message"]) == ("error", kind, "why")
    event = last_event("/v1/messages", Refusal(status, "code", "why", param="messages"))
    assert event.startswith(b"event: error\ndata: ")
    assert orjson.loads(event.partition(b"data: ")[2]) == body


def test_errors_of_everything_else_are_openais() -> None:
    for path in ("", "/v1/chat/completions", "/v1/responses"):
        assert orjson.loads(refusal_body(LOST, path))["error"] == {
            "message": "It is gone.",
            "type": "server_error",
            "param": None,
            "code": "replica_lost",
        }


def test_an_error_among_the_events_of_a_response_is_complete_by_the_schema() -> None:
    event = last_event("/v1/responses", LOST, 7)
    assert event.startswith(b"event: error\n")
    value = orjson.loads(event.partition(b"data: ")[2])
    assert (value["type"], value["sequence_number"]) == ("error", 7)
    assert (value["code"], value["message"], value["param"]) == ("replica_lost", "It is gone.", None)
    assert value["error"]["message"] == "It is gone."
