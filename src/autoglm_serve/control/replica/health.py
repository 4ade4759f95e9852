"""Asks an engine whether it can serve: its health path, one token, its counters; one question, one deadline.

Knows HTTP just enough to read an answer; knows neither replicas nor what follows from it.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

import orjson


class Health(StrEnum):
    OK = "ok"
    NOT_YET = "not yet"  # it answers, and says that it cannot serve
    ABSENT = "absent"  # it answers, but not here, or not to us (404, 401)
    SILENT = "silent"  # no answer: refused, reset, cut, no HTTP, or too late


async def ask(base_url: str, path: str, *, timeout_s: float) -> Health:
    """The health of the engine at `base_url`; any failure to answer is an answer too."""
    with suppress(OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
        async with asyncio.timeout(timeout_s):
            return _meaning(await _get(base_url, path))
    return Health.SILENT


def _meaning(status: int) -> Health:
    if 200 <= status < 300:
        return Health.OK
    return Health.ABSENT if 400 <= status < 500 and status != 429 else Health.NOT_YET


async def generate(base_url: str, model: str, *, timeout_s: float) -> Health:
    """Whether the engine generates: one token of a chat with `model`.

    ABSENT means that it lives and does not take this question, which says nothing of others.
    """
    message = {"role": "user", "content": "hi"}
    fields = {"model": model, "messages": [message], "max_tokens": 1, "temperature": 0}
    with suppress(OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
        async with asyncio.timeout(timeout_s):
            status, body = await _exchange(base_url, b"POST", "/v1/chat/completions", orjson.dumps(fields))
            meaning = _meaning(status)
            return Health.NOT_YET if meaning is Health.OK and b'"choices"' not in body else meaning
    return Health.SILENT


async def counters(base_url: str, work: re.Pattern[bytes], *, timeout_s: float) -> int | None:
    """A number that changes with the lines of /metrics that match `work`; None where none does."""
    with suppress(OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
        async with asyncio.timeout(timeout_s):
            status, body = await _exchange(base_url, b"GET", "/metrics", b"")
            lines = work.findall(body)
            return hash(tuple(lines)) if status == 200 and lines else None
    return None


_MOST_BYTES = 4 << 20


async def _get(base_url: str, path: str) -> int:
    async with _asked(base_url, b"GET", path, b"") as reader:
        return _status(await reader.readuntil(b"\n"))


async def _exchange(base_url: str, method: bytes, path: str, body: bytes) -> tuple[int, bytes]:
    """The status and the body, still chunked if it was sent so."""
    async with _asked(base_url, method, path, body) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\ncontent-length: *(\d+)", head.lower())
        if length is not None:
            return _status(head), await reader.readexactly(min(int(length[1]), _MOST_BYTES))
        rest = b""
        while not rest.endswith(b"0\r\n\r\n") and (data := await reader.read(1 << 16)):
            rest = (rest + data)[-_MOST_BYTES:]
        return _status(head), rest


@asynccontextmanager
async def _asked(base_url: str, method: bytes, path: str, body: bytes) -> AsyncIterator[asyncio.StreamReader]:
    url = urlsplit(base_url)
    reader, writer = await _opened(url)
    try:
        within = "" if url.scheme == "unix" else url.path.rstrip("/")
        told = (method, (within + path).encode(), url.netloc.encode() or b"localhost")
        head = b"%b %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n" % told
        if body:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        writer.write(head + b"\r\n" + body)
        yield reader
    finally:
        writer.transport.abort()


async def _opened(url: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.scheme == "unix":
        return await asyncio.open_unix_connection(url.path)
    secure = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    return await asyncio.open_connection(url.hostname or "", port, ssl=secure)


def _status(first_line: bytes) -> int:
    version, _, rest = first_line.partition(b" ")
    if not version.startswith(b"HTTP/"):
        raise ValueError("no HTTP")
    return int(rest[:3])
