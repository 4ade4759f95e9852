"""One client's connection: sends a request, reads its answer, and notes when each part of it came.

HTTP/1.1 with llhttp over asyncio's streams, kept alive between requests. What it measures is what a client
sees: the time from when a request was due, so that one which had to wait to be sent counts that wait too.
"""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import httptools

from autoglm_serve.bench.workloads import SessionRequest

_READ_BYTES = 1 << 16
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request and what became of it. Times are seconds since the run began."""

    due_s: float
    first_s: float | None
    """When the first piece of its text came; None where none came piece by piece."""
    ended_s: float
    error: str = ""
    """What kind of thing went wrong; empty where nothing did."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    gaps_s: tuple[float, ...] = ()
    """Between one piece of its text and the next."""


class _Reply:
    """llhttp's callbacks: the head, and the body as it comes."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.fresh = bytearray()
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.fresh += data

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(slots=True, kw_only=True)
class _Heard:
    """What an answer has said so far."""

    text: str = ""
    times_s: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    finished: bool = False

    def event(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self.finished = True
            return
        try:
            event = json.loads(data)
            self.usage = event.get("usage") or self.usage
            if "error" in event:
                self.error = f"error event: {event['error'].get('code') or event['error'].get('type')}"
            piece = "".join(map(_piece, event.get("choices") or ()))
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
            self.error = "an event that is no chat completion chunk"
            return
        if piece:
            self.text += piece
            self.times_s.append(now_s)


def _piece(choice: dict[str, Any]) -> str:
    delta = choice.get("delta") or {}
    calls = "".join(call.get("function", {}).get("arguments") or "" for call in delta.get("tool_calls") or ())
    return (
        (delta.get("reasoning") or delta.get("reasoning_content") or "")
        + (delta.get("content") or "")
        + calls
    )


class LoadClient:
    """A connection to one address, made anew where it was lost."""

    def __init__(self, url: str, key: str, began_s: float, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "127.0.0.1", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nAccept: */*\r\n"
        self._began_s = began_s
        self._timeout_s = timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def now_s(self) -> float:
        return time.perf_counter() - self._began_s

    async def ask(self, ask: SessionRequest, due_s: float) -> tuple[Sample, str]:
        """The sample, and the text of the answer."""
        heard = _Heard()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(ask, heard)
        except TimeoutError:
            heard.error = f"no end within {self._timeout_s:g} s"
        except (OSError, EOFError, httptools.HttpParserError) as error:
            heard.error = "cut off" if heard.times_s else f"not reached: {type(error).__name__}"
        if heard.error:
            self.close()
        return self._sample(heard, due_s), heard.text

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, ask: SessionRequest, heard: _Heard) -> None:
        reader, writer = await self._connected()
        head = f"POST {self._prefix}{ask.path} HTTP/1.1\r\n{self._head}Content-Type: {ask.content_type}\r\n"
        writer.write(f"{head}Content-Length: {len(ask.body)}\r\n\r\n".encode() + ask.body)
        await writer.drain()
        reply = _Reply()
        parser = httptools.HttpResponseParser(reply)
        size = 0
        while not reply.complete:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise EOFError
            parser.feed_data(data)
            size += len(data)
            if size > _MOST_BYTES:
                heard.error = "an answer without end"
                return
            if ask.streamed and parser.get_status_code() == 200:
                self._take_events(reply, heard)
        if not parser.should_keep_alive():
            self.close()
        self._conclude(parser.get_status_code(), ask, reply, heard)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            tls = ssl.create_default_context() if self._tls else None
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=tls, limit=1 << 20)
        return self._streams

    def _take_events(self, reply: _Reply, heard: _Heard) -> None:
        reply.body += reply.fresh
        reply.fresh.clear()
        cut = reply.body.rfind(b"\n") + 1
        now_s = self.now_s()
        for line in bytes(reply.body[:cut]).splitlines():
            if line.startswith(b"data:"):
                heard.event(line[5:].strip(), now_s)
        del reply.body[:cut]

    def _conclude(self, status: int, ask: SessionRequest, reply: _Reply, heard: _Heard) -> None:
        body = bytes(reply.body + reply.fresh)
        if status != 200:
            heard.error = f"{status} {_code(body)}".strip()
        elif ask.streamed and not heard.error and not heard.finished:
            heard.error = "the stream ended without [DONE]"
        elif not ask.streamed:
            heard.usage = _whole(body, heard)

    def _sample(self, heard: _Heard, due_s: float) -> Sample:
        details = heard.usage.get("prompt_tokens_details") or {}
        times = heard.times_s
        return Sample(
            due_s=due_s,
            first_s=times[0] if times else None,
            ended_s=times[-1] if times and not heard.error else self.now_s(),
            error=heard.error,
            prompt_tokens=int(heard.usage.get("prompt_tokens") or 0),
            cached_tokens=int(details.get("cached_tokens") or 0),
            output_tokens=int(heard.usage.get("completion_tokens") or len(times)),
            gaps_s=tuple(b - a for a, b in pairwise(times)),
        )


def _code(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _whole(body: bytes, heard: _Heard) -> dict[str, Any]:
    """The usage of an answer in one piece; an answer that is no JSON is an error."""
    try:
        answer = json.loads(body)
        return dict(answer.get("usage") or {})
    except (ValueError, AttributeError, TypeError, RecursionError):
        heard.error = "an answer that is no JSON"
        return {}
