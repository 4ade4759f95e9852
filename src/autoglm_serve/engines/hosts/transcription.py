"""`POST /v1/audio/transcriptions` as the OpenAI API has it: what is asked, and how it is answered. Pure.

Knows nothing of audio or of who listens; `speech_host` puts it on a port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from autoglm_serve.core.refusal import Refusal


class Format(StrEnum):
    JSON = "json"
    TEXT = "text"
    VERBOSE_JSON = "verbose_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionRequest:
    """A request. `prompt` is taken and not used: the model is trained on one prompt, its own."""

    file: bytes
    format: Format = Format.JSON
    temperature: float = 0.0
    language: str | None = None
    """Not told to the model, which hears it by itself; only repeated in the answer."""
    stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What was said in one stretch of the audio."""

    start_s: float
    end_s: float
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_ask(fields: Mapping[str, bytes]) -> TranscriptionRequest:
    """The form's fields as a request. Raises Refusal, which names the field."""
    if "file" not in fields:
        raise _refusal("missing_field", "The form has no 'file' with the audio.", "file")
    stream = _text(fields, "stream") or "false"
    if stream.lower() not in ("true", "false"):
        raise _refusal("wrong_type", "'stream' must be true or false.", "stream")
    return TranscriptionRequest(
        file=fields["file"],
        format=_format(_text(fields, "response_format")),
        temperature=_temperature(_text(fields, "temperature")),
        language=_text(fields, "language"),
        stream=stream.lower() == "true",
    )


def answer(segments: list[Segment], ask: TranscriptionRequest, duration_s: float) -> tuple[str, bytes]:
    """Content type and body of an answer that comes in one piece."""
    text = whole_text(segments)
    if ask.format is Format.TEXT:
        return "text/plain; charset=utf-8", text.encode() + b"\n"
    body: dict[str, Any] = {"text": text, "usage": usage(segments)}
    if ask.format is Format.VERBOSE_JSON:
        spoken = enumerate(segment for segment in segments if segment.text)
        body |= {
            "task": "transcribe",
            "language": ask.language or guessed_language(text),
            "duration": round(duration_s, 3),
            "segments": [_segment(number, segment) for number, segment in spoken],
        }
    return "application/json", orjson.dumps(body)


def delta(text: str) -> bytes:
    """One event of a stream: more text."""
    return _event({"type": "transcript.text.delta", "delta": text})


def done(segments: list[Segment]) -> bytes:
    """The last event of a stream."""
    return _event({"type": "transcript.text.done", "text": whole_text(segments), "usage": usage(segments)})


def failed(refusal: Refusal) -> bytes:
    """The last event of a stream that cannot go on."""
    return _event(envelope(refusal))


def envelope(refusal: Refusal) -> dict[str, Any]:
    details = {"type": refusal.type, "param": refusal.param, "code": refusal.code}
    return {"error": {"message": refusal.message, **details}}


def whole_text(segments: list[Segment]) -> str:
    return " ".join(segment.text for segment in segments if segment.text)


def usage(segments: list[Segment]) -> dict[str, Any]:
    read = sum(segment.prompt_tokens for segment in segments)
    written = sum(segment.completion_tokens for segment in segments)
    return {
        "type": "tokens",
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
    }


def guessed_language(text: str) -> str:
    """The model does not say which language it heard; its script does, between the two that it knows."""
    return "chinese" if any("\u4e00" <= character <= "\u9fff" for character in text) else "english"


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
    }


def _format(name: str | None) -> Format:
    try:
        return Format(name or Format.JSON)
    except ValueError:
        message = (
            f"'response_format' {name!r} is not available: the model does not say when a word was spoken. "
            f"Available: {', '.join(Format)}."
        )
        raise _refusal("unsupported_format", message, "response_format") from None


def _temperature(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise _refusal("wrong_type", "'temperature' must be a number from 0 to 1.", "temperature")
    return value


def _text(fields: Mapping[str, bytes], name: str) -> str | None:
    value = fields.get(name)
    return value.decode("utf-8", "replace").strip()[:100] or None if value else None


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _refusal(code: str, message: str, param: str) -> Refusal:
    return Refusal(400, code, message, param=param)
