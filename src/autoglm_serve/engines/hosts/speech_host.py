"""The process of one speech replica: an HTTP server in front of llama.cpp in the same process.

`python -m autoglm_serve.engines.hosts.speech_host --uds PATH --model FILE --mmproj FILE …`;
`llama_cpp_speech` writes that line and reads the exit status. llama.cpp could serve audio by itself, but
takes no Ogg, asks with a prompt that the model was not trained on, and ends its process over a clip of one
sample. Here every upload is decoded and measured first; llama.cpp only ever sees WAV of a length that the
model was trained on.

SIGTERM lets what is in flight finish, for `--grace-s` at most; a second one ends the process at once.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import signal
import sys
import threading
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from autoglm_serve.core import multipart
from autoglm_serve.core.model import AudioSpan
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.engines.base import Listen
from autoglm_serve.engines.hosts import audio, transcription
from autoglm_serve.engines.hosts.llama_cpp_host import (
    add_flags,
    enter_box,
    load,
    log,
    require_address,
    require_model,
    where,
)
from autoglm_serve.engines.hosts.transcription import Segment, TranscriptionRequest

PROMPT = "Please transcribe this audio into text"
"""The prompt that GLM-ASR is trained on; it stands behind the audio."""
MEDIA_MARKER = "<__media__>"
"""What the model's chat template looks for; llama.cpp would make up another for every process."""
WORDY_TOKENS_PER_S = 12
"""Nobody speaks faster. It ends the babble that noise can set off."""
LINGER_S = 0.25
"""After SIGTERM new connections are still taken for this long: the gateway may not have heard of it yet."""

T = TypeVar("T")
Chunk = dict[str, Any]
Chat = Callable[[Chunk, Callable[[Chunk], None]], None]
"""llama.cpp's chat completion: a body, and who gets each chunk. Blocks; ends early if that one raises."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    settings = arguments(argv)
    require_model(settings)
    listen = where(settings)
    require_address(listen)
    os.environ["LLAMA_MEDIA_MARKER"] = MEDIA_MARKER
    enter_box(settings, listen, starts=(Path(sys.executable),))  # to decode Ogg apart
    engine = load(settings, _inner(listen))
    span = AudioSpan(shortest_s=settings.min_audio_s, longest_s=settings.max_audio_s)
    listener = Listener(engine.handle_chat_completions, span)
    asyncio.run(serve(application(listener), listen, settings.grace_s))
    # llama.cpp's threads have nothing left to say; waiting for each of them could only hang.
    os._exit(0)


def _inner(listen: Listen) -> Listen:
    """Where llama.cpp's own server listens, which nobody asks: it cannot be had without one."""
    if listen.path is None:
        return Listen(host=listen.host, port=0)
    return Listen(path=listen.path.with_name("_" + listen.path.name))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="speech_host", description="Writes down speech.")
    add_flags(parser)
    parser.add_argument("--min-audio-s", type=float, default=0.1, help="shorter audio is refused")
    parser.add_argument("--max-audio-s", type=float, default=29.9, help="longer audio is cut at a pause")
    return parser.parse_args(argv)


class Listener:
    """Asks llama.cpp for the words of a sound, window by window."""

    def __init__(self, chat: Chat, span: AudioSpan) -> None:
        self.span = span
        self._chat = chat

    async def hear(self, sound: "array[int]", temperature: float) -> AsyncGenerator[str | Segment]:
        """The text as it is written, and behind the text of each window what it comes to."""
        start, said = 0, False
        for window in audio.windows(sound, self.span.longest_s):
            end = start + len(window)
            text, told = "", 0
            tokens: Mapping[str, int] = {}
            async with contextlib.aclosing(self._window(window, temperature)) as pieces:
                async for piece in pieces:
                    if not isinstance(piece, str):
                        tokens = piece
                        continue
                    text += piece
                    if grown := text.strip()[told:]:  # blanks wait for what follows them
                        yield " " + grown if said and not told else grown
                        told += len(grown)
            yield Segment(
                start_s=start / audio.RATE_HZ,
                end_s=end / audio.RATE_HZ,
                text=text.strip(),
                prompt_tokens=tokens.get("prompt_tokens", 0),
                completion_tokens=tokens.get("completion_tokens", 0),
            )
            start, said = end, said or bool(told)

    async def _window(self, sound: "array[int]", temperature: float) -> AsyncGenerator[str | dict[str, int]]:
        """llama.cpp's text for one window, then its token counts. Leaving early ends its work."""
        if audio.is_silent(sound):
            return
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        left = threading.Event()

        def on_chunk(chunk: Chunk) -> None:
            if left.is_set():
                raise InterruptedError("nobody listens any more")
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        def ask() -> None:
            try:
                self._chat(_body(audio.wav(sound, self.span.shortest_s), len(sound), temperature), on_chunk)
            finally:
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        asked = loop.run_in_executor(None, ask)
        try:
            while (chunk := await chunks.get()) is not None:
                for choice in _of(chunk).get("choices") or ():
                    if text := choice["delta"].get("content"):
                        yield text
                if counts := chunk.get("usage"):
                    yield counts
            await asked
        finally:
            left.set()


def _body(wav: bytes, samples: int, temperature: float) -> Chunk:
    sound = {"data": base64.b64encode(wav).decode(), "format": "wav"}
    parts = [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": PROMPT}]
    return {
        "messages": [{"role": "user", "content": parts}],
        "temperature": temperature,
        "max_tokens": 24 + WORDY_TOKENS_PER_S * samples // audio.RATE_HZ,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": False,  # no sound comes twice
    }


def _of(chunk: Chunk) -> Chunk:
    if error := chunk.get("error"):
        raise Refusal(500, "engine_failed", f"llama.cpp: {error.get('message')}", type=RefusalType.SERVER)
    return chunk


def application(listener: Listener) -> Starlette:
    """The web application."""

    async def health(request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def transcriptions(request: Request) -> Response:
        form_type = request.headers.get("content-type", "").encode()
        ask = transcription.read_ask(multipart.fields(form_type, await request.body()))
        sound = await asyncio.to_thread(audio.decode, ask.file, shortest_s=listener.span.shortest_s)
        if ask.stream:
            return StreamingResponse(_events(listener, sound, ask), media_type="text/event-stream")
        pieces = await _unless_gone(request, _collect(listener, sound, ask))
        content_type, body = transcription.answer(
            [piece for piece in pieces if isinstance(piece, Segment)], ask, len(sound) / audio.RATE_HZ
        )
        return Response(body, media_type=content_type)

    async def translations(request: Request) -> Response:
        message = (
            "The speech model writes down what it hears and does not translate. "
            "Use /v1/audio/transcriptions, and ask the chat model for the translation."
        )
        raise Refusal(400, "model_cannot", message)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", translations, methods=["POST"]),
        ],
        exception_handlers={Refusal: _refused},
    )


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    body = orjson.dumps(transcription.envelope(refusal))
    return Response(body, status_code=refusal.status, media_type="application/json")


async def _collect(listener: Listener, sound: "array[int]", ask: TranscriptionRequest) -> list[str | Segment]:
    return [piece async for piece in listener.hear(sound, ask.temperature)]


async def _events(listener: Listener, sound: "array[int]", ask: TranscriptionRequest) -> AsyncIterator[bytes]:
    """A stream of the OpenAI API: its deltas make up the text of its last event."""
    segments: list[Segment] = []
    try:
        async with contextlib.aclosing(listener.hear(sound, ask.temperature)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Segment):
                    segments.append(piece)
                else:
                    yield transcription.delta(piece)
        yield transcription.done(segments)
    except Refusal as refusal:
        yield transcription.failed(refusal)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; the work is dropped when the client leaves."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(499, "client_left", "The client left.")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def serve(app: Starlette, listen: Listen, grace_s: float) -> None:
    """Answer there until SIGTERM, then finish what is in flight."""
    config = uvicorn.Config(
        app,
        host=listen.host,
        port=listen.port or 0,
        uds=str(listen.path) if listen.path else None,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(grace_s),
    )
    server = _SpeechServer(config)
    loop = asyncio.get_running_loop()
    told = False

    def stop() -> None:
        nonlocal told
        if told:
            os._exit(0)
        told = True
        log("stopping")
        loop.call_later(LINGER_S, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    log(f"ready on {listen.url}")
    await server.serve()


class _SpeechServer(uvicorn.Server):
    """uvicorn without its signal handlers: a stop has to linger first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


if __name__ == "__main__":
    main()
