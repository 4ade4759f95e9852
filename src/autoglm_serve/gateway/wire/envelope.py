"""Errors as the API that was asked writes them: OpenAI's envelope, Anthropic's, and the events of streams."""

from typing import Any

import orjson

from autoglm_serve.core.refusal import Refusal, RefusalType

JSON_TYPE = b"application/json"
_MESSAGES = "/v1/messages"
OLLAMA = "/api/"
"""Ollama's paths begin with this."""
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    504: "timeout_error",
}


def envelope(message: str, type: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def refusal_body(refusal: Refusal, path: str = "") -> bytes:
    """The error in the form of the API that the path belongs to."""
    if path.startswith(_MESSAGES):
        return orjson.dumps({"type": "error", "error": _anthropic(refusal)})
    if path.startswith(OLLAMA):
        return orjson.dumps({"error": refusal.message, "code": refusal.code})
    return orjson.dumps(envelope(refusal.message, refusal.type, refusal.code, refusal.param))


def _anthropic(refusal: Refusal) -> dict[str, Any]:
    """An error of the Messages API; code and param are ours beside it."""
    kind = _ANTHROPIC_TYPES.get(refusal.status, "invalid_request_error")
    kind = "overloaded_error" if refusal.status in (503, 529) else kind
    return {"type": kind, "message": refusal.message, "code": refusal.code, "param": refusal.param}


def internal_error() -> Refusal:
    message = "An internal error ended this request; the service's log has it."
    return Refusal(500, "internal_error", message, type=RefusalType.SERVER)


def stopping() -> Refusal:
    """To whom the service does not answer any more."""
    message = "The service is stopping and did not finish this request in time. Send it again."
    return Refusal(503, "shutting_down", message, type=RefusalType.OVERLOADED, retry_after_s=5)


def too_many_connections() -> Refusal:
    message = "This service has as many connections as it can keep. Try again shortly."
    return Refusal(503, "too_many_connections", message, type=RefusalType.OVERLOADED, retry_after_s=1)


def too_many_of_one() -> Refusal:
    message = (
        "This client has as many connections as one may have (--max-client-connections). Use them again "
        "(keep-alive), or close some."
    )
    return Refusal(429, "too_many_connections", message, type=RefusalType.OVERLOADED, retry_after_s=1)


def error_event(refusal: Refusal) -> bytes:
    """The end of a stream that cannot go on: an error event and the terminator, as vLLM writes them."""
    return b"data: " + refusal_body(refusal) + b"\n\ndata: [DONE]\n\n"


def last_event(path: str, refusal: Refusal, number: int = 0) -> bytes:
    """`error_event` as a stream of this path ends; those of typed events have errors of their own.

    `number` is what the event is in the order of a response's events. Its error stands there twice: the
    specification has its parts at the top, OpenAI's own service, and clients that follow it, one level down.
    """
    if path.startswith(_MESSAGES):
        return b"event: error\ndata: %b\n\n" % refusal_body(refusal, path)
    if path != "/v1/responses":
        return error_event(refusal)
    error = envelope(refusal.message, refusal.type, refusal.code, refusal.param)["error"]
    event = {**error, "type": "error", "sequence_number": number, "error": error}
    return b"event: error\ndata: %b\n\n" % orjson.dumps(event)
