"""Errors of every engine in one dialect."""

import orjson
import pytest

from autoglm_serve.gateway.wire.envelope import error_event, in_our_dialect


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"object":"error","message":"old vLLM","type":"BadRequestError","code":400}', "old vLLM"),
        (b'{"detail":"FastAPI"}', "FastAPI"),
        (
            b'{"detail":[{"loc":["body"],"msg":"field required"}]}',
            '[{"loc":["body"],"msg":"field required"}]',
        ),
        (b'{"error":"TGI","error_type":"validation"}', "TGI"),
        (b"Internal Server Error", "Internal Server Error"),
        (b"<html>\xff</html>", "<html>\ufffd</html>"),
        (b"", "The engine answered 400."),
        (b"[]", "The engine answered 400."),
        (b'{"error":{}}', "The engine answered 400."),
    ],
)
def test_another_dialect_becomes_an_envelope(body: bytes, message: str) -> None:
    error = orjson.loads(in_our_dialect(400, body))["error"]
    assert error["message"] == message
    assert set(error) == {"message", "type", "param", "code"}


def test_an_envelope_is_left_alone() -> None:
    body = b'{ "error": {"message": "context too long", "type": "x", "param": "messages", "code": 400} }'
    assert in_our_dialect(400, body) is body


def test_a_stream_that_cannot_go_on_ends_with_an_error_and_done() -> None:
    event, done, rest = error_event("lost", "replica_lost").split(b"\n\n")
    assert orjson.loads(event.removeprefix(b"data: "))["error"]["code"] == "replica_lost"
    assert (done, rest) == (b"data: [DONE]", b"")
