"""OpenAI error envelopes: ours, and those of engines that speak another dialect."""

from typing import Any

import orjson

from autoglm_serve.core.refusal import Refusal, RefusalType

JSON_TYPE = b"application/json"


def envelope(message: str, type: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def refusal_body(refusal: Refusal) -> bytes:
    return orjson.dumps(envelope(refusal.message, refusal.type, refusal.code, refusal.param))


def internal_error() -> Refusal:
    message = "An internal error ended this request; the service's log has it."
    return Refusal(500, "internal_error", message, type=RefusalType.SERVER)


def no_answer(why: str) -> bytes:
    """The envelope for a reply that is none."""
    message = f"The replica's reply is no answer: {why}. The service's log has more; try again."
    return orjson.dumps(envelope(message, RefusalType.SERVER, "upstream_failed"))


def stopping() -> Refusal:
    """To whom the service does not answer any more."""
    message = "The service is stopping and did not finish this request in time. Send it again."
    return Refusal(503, "shutting_down", message, type=RefusalType.OVERLOADED, retry_after_s=5)


def too_many_connections() -> Refusal:
    message = "This service has as many connections as it can keep. Try again shortly."
    return Refusal(503, "too_many_connections", message, type=RefusalType.OVERLOADED, retry_after_s=1)


def error_event(message: str, code: str, type: str = RefusalType.SERVER) -> bytes:
    """The end of a stream that cannot go on: an error event and the terminator, as vLLM writes them."""
    return b"data: " + orjson.dumps(envelope(message, type, code)) + b"\n\ndata: [DONE]\n\n"


def last_event(path: str, message: str, code: str, type: str = RefusalType.SERVER) -> bytes:
    """`error_event` as a stream of this path ends; those of typed events have errors of their own."""
    error: dict[str, Any]
    match path:
        case "/v1/messages":
            error = {"type": "error", "error": {"type": "api_error", "message": message, "code": code}}
        case "/v1/responses":
            error = {"type": "error", "code": code, "message": message, "param": None}
        case _:
            return error_event(message, code, type)
    return b"event: error\ndata: %b\n\n" % orjson.dumps(error)


def in_our_dialect(status: int, body: bytes) -> bytes:
    """An engine's error body as an OpenAI envelope; unchanged where it already is one.

    FastAPI answers {"detail": …}, vLLM before 0.10 {"object": "error", "message": …}, others plain text.
    """
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError:
        raw = body.decode("utf-8", "replace").strip()[:500]
    if isinstance(raw, dict) and isinstance(raw.get("error"), dict) and raw["error"].get("message"):
        return body
    type = RefusalType.INVALID_REQUEST if status < 500 else RefusalType.SERVER
    return orjson.dumps(envelope(_said(raw) or f"The engine answered {status}.", type, "upstream_error"))


def _said(raw: object) -> str:
    match raw:
        case str():
            return raw
        case {"message": str(message)} | {"detail": str(message)} | {"error": str(message)}:
            return message
        case {"detail": detail}:
            return orjson.dumps(detail).decode()
        case _:
            return ""
