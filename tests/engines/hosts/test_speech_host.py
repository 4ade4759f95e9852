"""The speech replica's web application, with a llama.cpp that only acts."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from autoglm_serve.core import multipart
from autoglm_serve.core.model import AudioSpan, ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.engines.hosts import audio
from autoglm_serve.engines.hosts.speech_host import PROMPT, Chunk, Listener, application, arguments
from autoglm_serve.engines.hosts.transcription import Segment
from autoglm_serve.engines.llama_cpp_speech import LlamaCppSpeech
from tests.fakes import sounds
from tests.fakes.addresses import at

SPAN = AudioSpan(shortest_s=0.1, longest_s=2.0)


class Actor:
    """Plays llama.cpp's chat: writes the same words for every window, and keeps what it was asked."""

    def __init__(self, *words: str, error: str = "", endless: bool = False) -> None:
        self.words = words
        self.error = error
        self.endless = endless
        self.asked: list[dict[str, Any]] = []
        self.began = threading.Event()
        self.ended = threading.Event()

    def __call__(self, body: Chunk, on_chunk: Callable[[Chunk], None]) -> None:
        self.asked.append(body)
        try:
            if self.error:
                on_chunk({"error": {"message": self.error, "code": 500}})
                return
            on_chunk({"choices": [{"delta": {"role": "assistant", "content": None}}]})
            for word in self.words:
                on_chunk({"choices": [{"delta": {"content": word}}]})
            self.began.set()
            while self.endless:
                on_chunk({"choices": [{"delta": {"content": "a"}}]})
            on_chunk({"choices": [], "usage": {"prompt_tokens": 400, "completion_tokens": len(self.words)}})
        finally:
            self.ended.set()


def heard(actor: Actor, sound: Any) -> list[str | Segment]:
    async def story() -> list[str | Segment]:
        return [piece async for piece in Listener(actor, SPAN).hear(sound, 0.0)]

    return asyncio.run(story())


async def post(
    app: Starlette, fields: dict[str, bytes], *, gone: asyncio.Event | None = None
) -> tuple[int, bytes]:
    """One upload over ASGI; the client leaves when `gone` is set."""
    content_type, body = multipart.form(fields, "b0und")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/audio/transcriptions",
        "raw_path": b"/v1/audio/transcriptions",
        "query_string": b"",
        "headers": [(b"content-type", content_type)],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def uploaded(actor: Actor, **fields: bytes) -> tuple[int, bytes]:
    return asyncio.run(post(application(Listener(actor, SPAN)), fields))


# --- listening


def test_text_comes_as_it_is_written_and_then_as_a_whole() -> None:
    pieces = heard(Actor(" open", " settings", " "), sounds.tone(1.0))
    assert pieces == [
        "open",
        " settings",
        Segment(start_s=0.0, end_s=1.0, text="open settings", prompt_tokens=400, completion_tokens=3),
    ]


def test_long_audio_is_heard_in_windows_whose_texts_are_joined_by_a_space() -> None:
    actor = Actor("tap")
    pieces = heard(actor, sounds.tone(1.5) + sounds.silence(0.3) + sounds.tone(1.5))
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == "tap tap"
    assert len(actor.asked) == 2
    segments = [piece for piece in pieces if isinstance(piece, Segment)]
    assert segments[0].end_s == segments[1].start_s
    assert segments[-1].end_s == pytest.approx(3.3)


def test_silence_is_not_sent_to_the_model() -> None:
    actor = Actor("thank you for watching")
    assert heard(actor, sounds.silence(1.0)) == [Segment(start_s=0.0, end_s=1.0)]
    assert actor.asked == []


def test_the_model_gets_its_own_prompt_and_a_bound_on_what_it_writes() -> None:
    actor = Actor("tap")
    heard(actor, sounds.tone(1.0))
    (body,) = actor.asked
    sound, prompt = body["messages"][0]["content"]
    assert sound["type"] == "input_audio"
    assert prompt == {"type": "text", "text": PROMPT}
    assert 0 < body["max_tokens"] < 100


# --- the application


def test_an_upload_is_answered() -> None:
    status, body = uploaded(Actor("打开", "微信"), file=sounds.wav(sounds.tone(1.0)))
    assert (status, json.loads(body)["text"]) == (200, "打开微信")


def test_a_stream_is_events() -> None:
    status, body = uploaded(Actor("open", " it"), file=sounds.wav(sounds.tone(1.0)), stream=b"true")
    events = [json.loads(line[6:]) for line in body.decode().splitlines() if line]
    assert status == 200
    assert [event["type"] for event in events] == [*["transcript.text.delta"] * 2, "transcript.text.done"]
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["text"] == "open it"


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_a_clip_of_one_sample_never_reaches_llama_cpp(stream: bytes) -> None:
    actor = Actor("boom")
    status, body = uploaded(actor, file=sounds.wav(sounds.tone(1 / audio.RATE_HZ)), stream=stream)
    assert (status, json.loads(body)["error"]["code"]) == (400, "audio_too_short")
    assert actor.asked == []


def test_what_is_no_form_is_refused() -> None:
    status, body = uploaded(Actor(), model=b"m")
    assert (status, json.loads(body)["error"]["param"]) == (400, "file")


def test_a_failure_of_llama_cpp_is_told_with_its_words() -> None:
    status, body = uploaded(Actor(error="no memory left"), file=sounds.wav(sounds.tone(1.0)))
    assert status == 500
    assert "no memory left" in json.loads(body)["error"]["message"]
    status, body = uploaded(Actor(error="no memory left"), file=sounds.wav(sounds.tone(1.0)), stream=b"true")
    assert b"no memory left" in body


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_llama_cpp_stops_when_the_client_leaves(stream: bytes) -> None:
    async def story() -> None:
        actor, gone = Actor("a", endless=True), asyncio.Event()
        app = application(Listener(actor, SPAN))
        asked = asyncio.ensure_future(
            post(app, {"file": sounds.wav(sounds.tone(1.0)), "stream": stream}, gone=gone)
        )
        await asyncio.to_thread(actor.began.wait, 10)
        gone.set()
        assert await asyncio.to_thread(actor.ended.wait, 10)
        await asked

    asyncio.run(story())


# --- the command line


def test_the_host_understands_what_the_adapter_writes() -> None:
    member = Member(
        names=("ears",),
        files=ModelFiles(reference="m", format=ModelFormat.GGUF, path=Path("m"), mmproj=Path("t")),
        plan=Plan(
            engine="llama.cpp-speech",
            placements=(Placement(),),
            threads=2,
            max_num_seqs=2,
            max_model_len=2048,
        ),
        audio=AudioSpan(shortest_s=0.2, longest_s=12.5),
    )
    argv = LlamaCppSpeech().command(member, Placement(), at(4711)).argv
    settings = arguments(argv[3:])
    assert argv[2] == "autoglm_serve.engines.hosts.speech_host"
    assert (settings.port, settings.alias, settings.threads, settings.slots) == (4711, "ears", 2, 2)
    assert (settings.min_audio_s, settings.max_audio_s) == (0.2, 12.5)
