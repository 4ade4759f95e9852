"""Audio in a chat for a model without ears: each part is transcribed first and handed on as text.

A transcription is a request like any other, to the speech model that is served beside the chat model, with
the same routing, retries and load table, of the same client and under the same id. Its answer stays here, and
the books count one request, not two.
"""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import NoReturn

from autoglm_serve.core import multipart
from autoglm_serve.core.fleet import FleetView, ModelView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.access.permission import visible_to
from autoglm_serve.gateway.admission.admit import admit
from autoglm_serve.gateway.admission.cost import text_cost
from autoglm_serve.gateway.admission.document import Json, LongText, parse_object
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.admission.media_policy import is_audio
from autoglm_serve.gateway.admission.parts import parts, written
from autoglm_serve.gateway.admission.validate import refuse
from autoglm_serve.gateway.exchange.attempts import serve
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.wire import sse
from autoglm_serve.gateway.wire.http import Headers, Request
from autoglm_serve.gateway.wire.splice import Path, edited

PATH = "/v1/audio/transcriptions"
MOST_PARTS = 8
"""Of audio in one chat."""

_ITS_CLIENTS = (b"traceparent",)
"""Headers of the chat that a transcription has too."""
_FIELDS = {"input_audio": "data", "audio_url": "url"}
_SHAPES = {
    "input_audio": '{"data": "<base64>", "format": "wav"}',
    "audio_url": '{"url": "data:audio/wav;base64,…"}',
}


def transcribe_audio(exchange: Exchange) -> Awaitable[None] | None:
    """A filter: text in place of the audio of a call. Raises Refusal, which names the part."""
    return _transcribe(exchange) if exchange.call.audio else None


async def _transcribe(exchange: Exchange) -> None:
    call = exchange.call
    worker = exchange.worker
    sounds = await worker.loop.run_in_executor(worker.readers, _sounds, call.body)
    model = _speech_model(call.model, visible_to(exchange.identity.key, worker.fleet.value))
    cost_tokens = call.cost_tokens
    heard: dict[Path, object] = {}
    for path, sound in sounds.items():
        text = await _transcribed(exchange, written(path), sound, model)
        heard[path] = {"type": "text", "text": text}
        cost_tokens += text_cost(len(text.encode()))
    body = await worker.loop.run_in_executor(worker.readers, edited, call.body, heard)
    exchange.admitted(call._replace(body=body, model_slot=None, cost_tokens=cost_tokens, audio=0))


def _sounds(body: bytes) -> dict[Path, bytes]:
    """The audio files in a chat, by the path of their parts."""
    spoken = [part for part in parts(parse_object(body)) if is_audio(part)]
    if len(spoken) > MOST_PARTS:
        refuse("too_much_audio", f"At most {MOST_PARTS} audio parts are taken in one chat.", "messages")
    return {part.path: _sound(str(part), part.value) for part in spoken}


def _speech_model(deaf: ModelView, fleet: FleetView) -> ModelView:
    model = next((each for each in fleet.models if Capability.TRANSCRIPTION in each.capabilities), None)
    if model is None:
        refuse(
            "no_hearing",
            f"The model '{deaf.name}' does not hear, and no speech model is served beside it. "
            "The bundled demo has one (`autoglm serve` without --model and with speech on); "
            "or transcribe the audio yourself and send text.",
            "messages",
        )
    return model


def _sound(where: str, part: Json) -> bytes:
    """The audio file in a part: base64 in `input_audio.data`, or a data URL."""
    kind = part["type"]
    value = part.get(kind)
    where = f"{where}.{kind}"
    if isinstance(value, dict):
        field = _FIELDS[kind]
        where, value = f"{where}.{field}", value.get(field)
    if not isinstance(value, str):
        refuse("wrong_type", f"'{where}' must hold the audio: {_SHAPES[kind]}.", where)
    head, comma, _ = value.partition(",")
    if comma and not (head.startswith("data:") and head.endswith(";base64")):
        _no_audio(where, "is no base64 data URL")
    if kind == "audio_url" and not comma:
        _no_audio(
            where,
            "must hold the audio itself (data:audio/wav;base64,…): nothing is fetched for a "
            "model that does not hear",
        )
    try:
        return b"".join(_decoded(value, len(head) + 1 if comma else 0))
    except (binascii.Error, ValueError) as error:
        _no_audio(where, f"is not valid base64 ({error})")


def _decoded(text: str, at: int) -> Iterator[bytes]:
    """What the base64 in `text` stands for, from `at` on, a slice at a time. Raises ValueError."""
    size = text.end - text.start if isinstance(text, LongText) else len(text)
    for start in range(at, size, _SLICE):
        yield base64.b64decode(_slice(text, start, min(start + _SLICE, size)), validate=True)


def _slice(text: str, start: int, end: int) -> str | bytes:
    return text.body[text.start + start : text.start + end] if isinstance(text, LongText) else text[start:end]


_SLICE = 1 << 20  # a multiple of 4


def _no_audio(where: str, what: str) -> NoReturn:
    refuse("invalid_audio", f"'{where}' {what}.", where)


async def _transcribed(chat: Exchange, where: str, sound: bytes, model: ModelView) -> str:
    worker, listener = chat.worker, BufferedClient()
    exchange = Exchange(worker, listener, _transcription(chat, sound, model))
    exchange.identity = chat.identity
    exchange.admitted(admit(exchange.request, ENDPOINTS[PATH], worker.fleet.value, worker.settings.media))
    await serve(exchange)
    return listener.text(where)


def _transcription(chat: Exchange, sound: bytes, model: ModelView) -> Request:
    """The same sound makes the same request: one that kills is known again by what it holds."""
    boundary = hashlib.blake2b(sound, digest_size=16).hexdigest()
    content_type, body = multipart.form({"model": model.name.encode(), "file": sound}, boundary)
    headers = {name: value for name, value in chat.request.headers.items() if name in _ITS_CLIENTS}
    request = Request(
        method=b"POST",
        path=PATH,
        headers={**headers, b"content-type": content_type},
        body=body,
        started_s=chat.now_s,
    )
    request.id = chat.request.id
    return request


class BufferedClient:
    """A caller that keeps what it is answered (`delivery.Caller`)."""

    answering = False
    paused = False
    on_pause: Callable[[], None] | None = None
    on_resume: Callable[[], None] | None = None

    def __init__(self) -> None:
        self._status = 0
        self._body = b""
        self._refusal: Refusal | None = None

    def text(self, where: str) -> str:
        """What was said. Raises Refusal where there is no answer."""
        if self._refusal is not None:
            raise _about(where, self._refusal)
        answer = sse.parsed(self._body) or {}
        if self._status == 200 and "text" in answer:
            return str(answer["text"])
        error = sse.mapping(answer.get("error"))
        said = error.get("message") or "what was answered is no transcription"
        status = self._status if self._status >= 400 else 500
        raise Refusal(
            status,
            error.get("code") or "not_heard",
            f"'{where}' cannot be transcribed: {said}",
            type=RefusalType.INVALID_REQUEST if status < 500 else RefusalType.SERVER,
            param=where,
        )

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._status, self._body = status, body

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        self._refusal = refusal

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        self.answering = True
        self._status, self._body = status, first

    def write(self, data: bytes) -> None:
        self._body += data

    def finish(self) -> None:
        self.answering = False

    def abort(self) -> None:
        message = "The replica that listened was lost in the middle of its answer."
        self._refusal = Refusal(503, "replica_lost", message, type=RefusalType.SERVER, retry_after_s=1)


def _about(where: str, refusal: Refusal) -> Refusal:
    """What the speech model does not take, said of the part of the chat."""
    if refusal.status >= 500:
        return refusal
    message = f"'{where}' cannot be transcribed: {refusal.message}"
    return Refusal(refusal.status, refusal.code, message, type=refusal.type, param=where)
