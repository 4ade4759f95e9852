"""The client's side of HTTP: one `ClientConnection` per socket, llhttp for the parsing.

Owns what a connection may do: sizes, deadlines, order of pipelined requests, back-pressure, and the bytes of
every answer. What a request means is decided elsewhere (`local`, `dispatch`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.envelope import JSON_TYPE, refusal_body
from autoglm_serve.gateway.http import LAST_CHUNK, Headers, Request, chunk, response_head

_LINGER_S = 1.0
_LEAST_BODY_RATE = 16 * 1024  # bytes a second: what a body's deadline grows by while it arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost. A time of 0 means no limit."""

    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 64 * 1024 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    allow_origin: str = "*"
    """Access-Control-Allow-Origin for browsers; empty sends none."""


Handler = Callable[["ClientConnection", Request], asyncio.Task[None] | None]
"""Answers at once and returns None, or returns the task that will."""


class Connections(set["ClientConnection"]):
    """The open connections of a worker; `empty` is set while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = asyncio.Event()
        self.empty.set()

    def enter(self, connection: "ClientConnection") -> None:
        self.add(connection)
        self.empty.clear()

    def leave(self, connection: "ClientConnection") -> None:
        self.discard(connection)
        if not self:
            self.empty.set()


class ClientConnection(asyncio.Protocol):
    """One client. Requests are answered in the order in which they came, one at a time."""

    def __init__(
        self,
        handle: Handler,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        everyone: Connections,
    ) -> None:
        self._handle = handle
        self._limits = limits
        self._loop = loop
        self._everyone = everyone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._chunked = False
        self.answering = False
        """The head of the current answer has been sent."""
        self._lingering = False
        self._loopback = False
        self._draining = False
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self.deadline_s: float | None = None
        self._deadline_is: str = "header"
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._pending_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_body = False
        self._begun_s = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        peer = transport.get_extra_info("peername")
        host = peer[0] if isinstance(peer, tuple) else ""
        self._loopback = host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")
        self._everyone.enter(self)
        self._wait_for("header", self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._everyone.leave(self)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if not self._pending_bytes and not self._in_body:
            self._begun_s = self._loop.time()
            if self._current is None:
                self._wait_for("header", self._limits.header_timeout_s)
        self._pending_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except Refusal as refusal:
            self._refuse_and_close(refusal)
            return
        except httptools.HttpParserUpgrade:
            self._refuse_and_close(_bad_http("protocol upgrades are not supported"))
            return
        except httptools.HttpParserError as error:
            context = error.__context__
            self._refuse_and_close(context if isinstance(context, Refusal) else _bad_http(str(error)))
            return
        if not self._in_body and self._pending_bytes > self._limits.max_head_bytes:
            self._refuse_and_close(_head_too_large(self._limits))  # one endless header

    def pause_writing(self) -> None:
        if self.on_pause is not None:
            self.on_pause()

    def resume_writing(self) -> None:
        if self.on_resume is not None:
            self.on_resume()

    # httptools callbacks

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._count_head(len(name) + len(value))
        self._headers[name.lower()] = value

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.max_head_bytes or self._header_count > self._limits.max_headers:
            raise _head_too_large(self._limits)

    def on_headers_complete(self) -> None:
        self._in_body = True
        length = self._headers.get(b"content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            raise _body_too_large(self._limits)
        if length not in (None, b"0") or b"transfer-encoding" in self._headers:
            self._wait_for("body", self._limits.body_timeout_s)
            expects = self._headers.get(b"expect", b"").lower() == b"100-continue"
            if expects and self._transport is not None and self._current is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.max_body_bytes:
            raise _body_too_large(self._limits)
        self._body.append(data)
        if self.deadline_s is not None:
            self.deadline_s += len(data) / _LEAST_BODY_RATE

    def on_message_complete(self) -> None:
        version = self._parser.get_http_version()
        request = Request(
            method=self._parser.get_method(),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            target=self._url.decode("latin-1"),
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            started_s=self._begun_s or self._loop.time(),
            keep_alive=self._parser.should_keep_alive(),
            http10=version == "1.0",
            loopback=self._loopback,
        )
        self._reset()
        self.deadline_s = None
        if self._current is None and not self._waiting:
            self._begin(request)
        else:
            self._waiting.append(request)
            if self._transport is not None:
                self._transport.pause_reading()

    # one request after the other

    def _begin(self, request: Request) -> None:
        self._current = request
        self.deadline_s = None
        task = self._handle(self, request)
        if task is not None and self._current is request:
            self._task = task

    def _answered(self) -> None:
        """The answer to the current request has been written."""
        request, self._current, self._task = self._current, None, None
        self.on_pause = self.on_resume = None
        self._chunked = self.answering = False
        if self._transport is None or request is None:
            return
        if self._draining or not request.keep_alive:
            self._transport.close()
        elif self._waiting:
            self._loop.call_soon(self._next)
        else:
            self._wait_for("keep-alive", self._limits.keep_alive_s)

    def _next(self) -> None:
        if self._transport is None or not self._waiting:
            return
        request = self._waiting.popleft()
        if not self._waiting:
            self._transport.resume_reading()
        self._begin(request)

    # answers (`relay.Client`)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        if self._transport is not None:
            length = ((b"content-length", b"%d" % len(body)),)
            head = response_head(status, self._common(status) + headers + length)
            hidden = self._current is not None and self._current.method == b"HEAD"
            self._transport.write(head if hidden else head + body)
        self._answered()

    def refuse(self, refusal: Refusal) -> None:
        """An error envelope."""
        headers: Headers = ((b"content-type", JSON_TYPE),)
        if refusal.retry_after_s is not None:
            headers += ((b"retry-after", b"%d" % refusal.retry_after_s),)
        self.respond(refusal.status, headers, refusal_body(refusal))

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        """The head of an answer whose length is not known, and its first piece."""
        if self._transport is None or self._current is None:
            return
        self.answering = True
        self._chunked = not self._current.http10
        if self._chunked:
            headers += ((b"transfer-encoding", b"chunked"),)
        else:
            self._current.keep_alive = False
        head = response_head(status, self._common(status) + headers)
        self._transport.write(head + (chunk(first) if self._chunked else first))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(chunk(data) if self._chunked else data)

    def finish(self) -> None:
        """The end of an answer that `start` began."""
        if self._chunked and self._transport is not None:
            self._transport.write(LAST_CHUNK)
        self._answered()

    def _common(self, status: int) -> Headers:
        headers: Headers = ()
        if self._limits.allow_origin:
            headers = ((b"access-control-allow-origin", self._limits.allow_origin.encode()),)
        request = self._current
        if request is not None and request.headers.get(b"x-request-id"):
            headers += ((b"x-request-id", request.headers[b"x-request-id"][:128]),)
        if request is None or not request.keep_alive or self._draining:
            headers += ((b"connection", b"close"),)
        elif request.http10:
            headers += ((b"connection", b"keep-alive"),)
        return headers

    # deadlines and the end

    def _wait_for(self, what: str, seconds: float) -> None:
        self._deadline_is = what
        self.deadline_s = self._loop.time() + seconds if seconds else None

    def check_deadline(self, now_s: float) -> None:
        """Called for every connection now and then."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return
        self.deadline_s = None
        started = self._pending_bytes > 0 or self._in_body
        if self._lingering or self._deadline_is == "keep-alive" or not started:
            self.close()
            return
        part = "body" if self._in_body else "head"
        message = f"The {part} of the request did not arrive in time. Send it without long pauses."
        self._refuse_and_close(Refusal(408, "request_timeout", message))

    def _refuse_and_close(self, refusal: Refusal) -> None:
        """Refuse what was still arriving. Its answer comes behind those that are still being written."""
        if self._current is not None:
            self.close()
            return
        self._current = Request(
            method=b"", path="", headers={}, body=b"", started_s=self._loop.time(), keep_alive=False
        )
        transport = self._transport
        self._reset()
        if transport is None:
            return
        headers: Headers = ((b"content-type", JSON_TYPE),)
        body = refusal_body(refusal)
        headers = self._common(refusal.status) + headers + ((b"content-length", b"%d" % len(body)),)
        transport.write(response_head(refusal.status, headers) + body)
        # Closing now would reset the connection, and the client, still writing, would never read why.
        self._lingering = True
        if transport.can_write_eof():
            transport.write_eof()
        self._wait_for("linger", _LINGER_S)

    def drain(self) -> None:
        """Close once the requests in hand are answered."""
        self._draining = True
        if self._current is None and not self._waiting:
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection: what the client has is not the whole answer."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def busy(self) -> bool:
        return self._current is not None or bool(self._waiting)


def _bad_http(why: str) -> Refusal:
    return Refusal(400, "bad_http", f"This is not a valid HTTP/1.1 request: {why}.")


def _head_too_large(limits: Limits) -> Refusal:
    message = (
        f"The request's head is too large: at most {limits.max_head_bytes} bytes and "
        f"{limits.max_headers} headers are taken."
    )
    return Refusal(431, "headers_too_large", message)


def _body_too_large(limits: Limits) -> Refusal:
    most = f"{limits.max_body_bytes / 1024 / 1024:.0f} MiB"
    return Refusal(413, "body_too_large", f"The body is larger than {most}, the most taken (--max-body-mb).")
