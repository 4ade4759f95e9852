"""Asks an engine whether it can serve: one GET, one deadline, one of four answers.

Knows HTTP just enough to read a status; knows neither replicas nor what follows from the answer.
"""

import asyncio
import ssl
from contextlib import suppress
from enum import StrEnum
from urllib.parse import urlsplit


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


async def _get(base_url: str, path: str) -> int:
    url = urlsplit(base_url)
    secure = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    host = url.hostname or ""
    reader, writer = await asyncio.open_connection(host, port, ssl=secure)
    try:
        target = url.path.rstrip("/") + path
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
        first_line = await reader.readuntil(b"\n")
        return _status(first_line)
    finally:
        writer.transport.abort()


def _status(first_line: bytes) -> int:
    version, _, rest = first_line.partition(b" ")
    if not version.startswith(b"HTTP/"):
        raise ValueError("no HTTP")
    return int(rest[:3])
