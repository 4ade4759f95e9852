"""The client's side of HTTP: one `ClientConnection` per socket, llhttp for the parsing.

Owns what a connection may do: sizes, deadlines, order of pipelined requests, back-pressure, and the bytes of
every answer. What a request means is decided elsewhere (`pages`, `dispatch`).
"""

import asyncio
import logging
import select
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.wire.envelope import JSON_TYPE, internal_error, refusal_body, too_many_connections
from autoglm_serve.gateway.wire.held import Held
from autoglm_serve.gateway.wire.http import (
    LAST_CHUNK,
    Headers,
    Pieces,
    Request,
    chunk,
    is_event_stream,
    response_head,
)
from autoglm_serve.gateway.wire.unread import Unread

log = logging.getLogger(__name__)

_LINGER_S = 1.0
_ANNOUNCED_BYTES = 256 * 1024  # held in advance for a body that does not say how long it is
_MOST_BEING_REFUSED = 32
"""Connections beyond the limit that are told so; with more of them it is the telling that would cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may cost. A time of 0 means no limit."""

    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 64 * 1024 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    """In which a body must arrive, or as much of it as `least_body_rate` says."""
    least_body_rate: int = 16 * 1024
    """Bytes a second of a body that takes longer."""
    keep_alive_s: float = 75.0
    send_timeout_s: float = 60.0
    """In which a client must take what `least_read_rate` says of what waits for it, or all."""
    least_read_rate: int = 1024
    """Bytes a second."""
    max_unread_bytes: int = 1024 * 1024
    """Of a stream, kept for a client that does not read it yet, before its engine is made to wait."""
    max_unread_whole_bytes: int = 32 * 1024 * 1024
    """The same of an answer that is no stream: its engine is done, and others want its place."""
    max_held_bytes: int = 1024 * 1024 * 1024
    """Bodies and unread answers of all clients of one worker together."""
    max_client_bytes: int = 512 * 1024 * 1024
    """Those of one client."""
    max_connections: int = 16_384
    """Open connections of one worker; one more is refused."""
    allow_origin: tuple[str, ...] = ("*",)
    """Web origins whose pages may read the answers (CORS); * is any, empty is none."""


_MOST_OFFERS = 8
"""To upgrade, in what arrives at once. Each has what follows it read again."""
_ONCE = frozenset({b"host", b"transfer-encoding", b"content-encoding", b"authorization"})
"""Headers of which a proxy in front may have read the one, and we the other."""
_VERSIONS = frozenset({"1.0", "1.1"})


class Handler(Protocol):
    """What requests mean: the worker's side of a connection."""

    def handle(self, client: "ClientConnection", request: Request) -> asyncio.Task[None] | None:
        """Answer at once and return None, or return the task that will."""
        ...

    def holder(self, peer: str, headers: Mapping[bytes, bytes], *, loopback: bool) -> str:
        """For whom the bytes of a request from `peer`, which begins with these headers, are held."""
        ...

    def refused(self, begun_s: float) -> None:
        """A request that began to arrive at `begun_s` was refused before it was whole."""
        ...


class Connections(set["ClientConnection"]):
    """The open connections of a worker, and what it holds for them; `empty` is set while there are none."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.held = Held(most_bytes=limits.max_held_bytes, most_of_one_bytes=limits.max_client_bytes)
        self._resting: dict[ClientConnection, None] = {}
        """Those whose requests are all answered; the longest so first."""
        self.empty = asyncio.Event()
        self.empty.set()

    def enter(self, connection: "ClientConnection") -> None:
        self.add(connection)
        self.empty.clear()

    def rest(self, connection: "ClientConnection") -> None:
        """Its requests are all answered."""
        self._resting[connection] = None

    def stir(self, connection: "ClientConnection") -> None:
        """A request begins to arrive on it."""
        self._resting.pop(connection, None)

    def make_room(self) -> bool:
        """Close the connection whose last request was answered first, for one that may bring a request."""
        longest = next(iter(self._resting), None)
        if longest is None:
            return False
        self.stir(longest)
        longest.close()
        return True

    def leave(self, connection: "ClientConnection") -> None:
        self.discard(connection)
        self.stir(connection)
        if not self:
            self.empty.set()


class ClientConnection(asyncio.Protocol):
    """One client. Requests are answered in the order in which they came, one at a time."""

    def __init__(
        self,
        handler: Handler,
        limits: ConnectionLimits,
        loop: asyncio.AbstractEventLoop,
        everyone: Connections,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._loop = loop
        self._everyone = everyone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._loopback = False
        self._peer = ""
        self._draining = False
        self._promised = False
        """The client was told with its last answer that the connection stays."""
        # what is being answered
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._chunked = self._streams = False
        self.answering = False
        """The head of the current answer has been sent."""
        self._last_word: Refusal | None = None
        """What is said once all requests before it are answered; nothing is read any more."""
        self._unread = Unread(everyone.held)
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        # when to give up waiting
        self._deadline_s: float | None = None
        self._deadline_is = "header"
        self._closing_deadline_s: float | None = None
        self._holder = ""
        self._held_bytes: deque[int] = deque()
        """Of the bodies of its requests, in their order; the last may still be arriving."""
        self._reset()

    def _reset(self) -> None:
        """Ready for the next request to arrive."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._dry_bytes = 0
        self._progress = 0
        self._body = Pieces()
        self._quantum_bytes = 0
        """Where the body's time begins anew."""
        self._in_body = False
        self._asks_first = False
        """It waits for 100 Continue."""
        self._begun_s = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        peer = transport.get_extra_info("peername")
        host = peer[0] if isinstance(peer, tuple) else ""
        self._peer = host
        self._loopback = host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")
        self._everyone.enter(self)
        beyond = len(self._everyone) - self._limits.max_connections
        if beyond > _MOST_BEING_REFUSED:
            self.abort()
        elif beyond > 0 and not self._everyone.make_room():
            self._say_last(too_many_connections())
        else:
            self._wait_for("header", self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._everyone.leave(self)
        self._unread.end()
        self._let_go(sum(self._held_bytes))
        self._held_bytes.clear()
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        # Whom they hold holds us: the whole answer would stay in memory until the collector comes by.
        self._task = self.on_pause = self.on_resume = None
        del self._parser

    def data_received(self, data: bytes) -> None:
        if self._last_word is not None:
            return
        seen = self._progress
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse_rest(_why_unparsed(error))
            return
        if self._progress != seen:
            self._dry_bytes = 0
            return
        # One endless header, trailer or chunk extension: the parser keeps it and calls nobody.
        self._dry_bytes += len(data)
        if self._dry_bytes > self._limits.max_head_bytes:
            self._refuse_rest(_head_too_large(self._limits))

    def _feed(self, data: bytes) -> None:
        for _ in range(_MOST_OFFERS):
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            else:
                return
        self._refuse_rest(_bad_http("it offers to upgrade again and again"))

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Pass over an offer to upgrade, as RFC 9110 allows: Java's client offers h2c with its first POST.

        llhttp takes what follows the head for another protocol, so the head is read again without the offer.
        """
        method, url, version = self._parser.get_method(), self._url, self._parser.get_http_version()
        headers = [item for item in self._headers.items() if item[0] != b"upgrade"]
        self._reset()
        self._parser = httptools.HttpRequestParser(self)
        lines = [b"%b %b HTTP/%b" % (method, url, version.encode()), *(b"%b: %b" % item for item in headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + rest

    def pause_writing(self) -> None:
        limits, transport = self._limits, self._transport
        if transport is None:
            return
        may_keep = (limits.max_unread_bytes,) if self._streams else (limits.max_unread_whole_bytes,)
        deadline_s = self._deadline_in(limits.send_timeout_s)
        self._unread.begin(self._holder, transport.get_write_buffer_size(), may_keep, deadline_s)
        if self._unread.holds_back and self.on_pause is not None:
            self.on_pause()

    def resume_writing(self) -> None:
        if not self._open:
            self._closing_deadline_s = self._deadline_in(self._limits.send_timeout_s)
        if self._unread.end() and self.on_resume is not None:
            self.on_resume()
        if self._current is None:
            self._next()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._begun_s = self._loop.time()
        self._everyone.stir(self)
        if self._current is None:
            self._wait_for("header", self._limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._count_head(len(name) + len(value))
        if not self._in_body:  # a trailer must not pass for a header
            name = name.lower()
            if name in self._headers and name in _ONCE:
                raise _bad_http(f"it has two headers {name.decode('latin-1')}")
            self._headers[name] = value

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.max_head_bytes or self._header_count > self._limits.max_headers:
            raise _head_too_large(self._limits)

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._progress += 1
        if self._parser.should_upgrade():
            if self._parser.get_method() == b"CONNECT":
                raise _bad_http("this is no proxy, CONNECT goes nowhere")
            return
        coding = self._headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise _bad_http("its transfer-encoding is not chunked")
        length = self._headers.get(b"content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            raise _body_too_large(self._limits)
        if not self._holder:  # for as long as the connection lives: what was taken is given back
            self._holder = self._handler.holder(self._peer, self._headers, loopback=self._loopback)
        self._held_bytes.append(0)
        self._hold(int(length or 0))
        if length not in (None, b"0") or b"transfer-encoding" in self._headers:
            expects = self._headers.get(b"expect", b"").lower() == b"100-continue"
            self._asks_first = expects and self._parser.get_http_version() != "1.0"
            self._await_body()

    def _await_body(self) -> None:
        """A client that asks first sends its body when it is told to, which is when its turn has come."""
        if self._asks_first:
            if self.busy or self._transport is None:
                return
            self._asks_first = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._wait_for("body", self._limits.body_timeout_s)
        self._begin_quantum()

    def on_body(self, data: bytes) -> None:
        self._progress += 1
        self._body.add(data)
        size_bytes = len(self._body)
        if size_bytes > self._limits.max_body_bytes:
            raise _body_too_large(self._limits)
        if size_bytes > self._held_bytes[-1]:
            self._hold(_ANNOUNCED_BYTES)
        if size_bytes >= self._quantum_bytes and self._deadline_s is not None:
            self._wait_for("body", self._limits.body_timeout_s)
            self._begin_quantum()

    def _begin_quantum(self) -> None:
        """So much has to arrive within the time of a body. What came early is no credit."""
        limits = self._limits
        self._quantum_bytes = len(self._body) + int(limits.least_body_rate * limits.body_timeout_s)

    def _hold(self, size_bytes: int) -> None:
        """Account for so much more of the request that arrives."""
        if size_bytes and not self._everyone.held.take(self._holder, size_bytes):
            raise _holds_too_much(self._limits)
        self._held_bytes[-1] += size_bytes

    def _let_go(self, size_bytes: int) -> None:
        if size_bytes:
            self._everyone.held.give(self._holder, size_bytes)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        target, version = self._url.decode("latin-1"), self._parser.get_http_version()
        if version not in _VERSIONS:
            raise _bad_http(f"HTTP/{version} is not spoken here")
        request = Request(
            method=self._parser.get_method(),
            path=path_of(target),
            target=target,
            headers=self._headers,
            body=self._body,
            started_s=self._begun_s,
            keep_alive=self._parser.should_keep_alive(),
            http10=version == "1.0",
            loopback=self._loopback,
            peer=self._peer,
        )
        progress = self._progress + 1
        self._reset()
        self._progress = progress
        self._deadline_s = None
        if not self._open:
            return
        if not self.busy and not self._unread.waits:
            self._begin(request)
        else:  # one at a time, and none while the client does not read its answers
            self._waiting.append(request)
            self._reading(False)

    # one request after the other

    def _begin(self, request: Request) -> None:
        self._current = request
        self._deadline_s = None
        task = self._handler.handle(self, request)
        if task is not None and self._current is request:
            self._task = task

    def _answered(self) -> None:
        """The answer to the current request has been written."""
        request, self._current, self._task = self._current, None, None
        if request is not None and self._held_bytes:
            self._let_go(self._held_bytes.popleft())
        self.on_pause = self.on_resume = None
        self._chunked = self._streams = self.answering = False
        if not self._open or request is None:
            return
        if not request.keep_alive or (self._draining and not self._waiting and not self._promised):
            self.close()
        elif self._waiting or self._last_word is not None:
            self._loop.call_soon(self._next)
        elif self._in_body:
            self._await_body()
        elif self._begun_s:
            self._wait_for("header", self._limits.header_timeout_s)
        else:
            self._everyone.rest(self)
            self._wait_for("keep-alive", self._limits.keep_alive_s)

    def _next(self) -> None:
        if not self._open or self._current is not None or self._unread.waits:
            return
        if self._waiting:
            request = self._waiting.popleft()
            if not self._waiting:
                self._reading(True)
            self._begin(request)
        elif self._last_word is not None:
            self._say_last(self._last_word)

    def _reading(self, on: bool) -> None:
        if self._transport is not None and self._last_word is None:
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # answers (`relay.Client`)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        if self._transport is not None:
            if status != 204:  # it has no body, and may not say how long
                headers += ((b"content-length", b"%d" % len(body)),)
            head = response_head(status, self._common() + headers)
            hidden = self._current is not None and self._current.method == b"HEAD"
            self._transport.write(head if hidden else head + body)
        self._answered()

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        """An error envelope, in the form of the API that was asked."""
        path = self._current.path if self._current is not None else ""
        self.respond(refusal.status, refusal_headers(refusal) + headers, refusal_body(refusal, path))

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        """The head of an answer whose length is not known, and its first piece."""
        if self._transport is None or self._current is None:
            return
        self.answering = True
        self._streams = is_event_stream(headers)
        self._chunked = not self._current.http10
        if self._chunked:
            headers += ((b"transfer-encoding", b"chunked"),)
        else:
            self._current.keep_alive = False
        head = response_head(status, self._common() + headers)
        self._transport.write(head + (chunk(first) if self._chunked else first))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            waits = self._unread.waits  # what fills the buffer is counted there
            self._transport.write(chunk(data) if self._chunked else data)
            if waits:
                self._wrote_more(len(data))

    def _wrote_more(self, written_bytes: int) -> None:
        """While the client does not read: at some point the engine has to wait."""
        if self._transport is None or not self._unread.add(
            written_bytes, self._transport.get_write_buffer_size()
        ):
            return
        if self.on_pause is not None:
            self.on_pause()

    def finish(self) -> None:
        """The end of an answer that `start` began."""
        if self._chunked and self._transport is not None:
            self._transport.write(LAST_CHUNK)
        self._answered()

    def _common(self) -> Headers:
        request = self._current
        administers = request is not None and request.path.startswith("/admin/")
        headers: Headers = () if administers else _allowed_origin(self._limits.allow_origin, request)
        if request is not None and request.id:
            headers += ((b"x-request-id", request.id),)
        self._promised = not self._draining
        if request is None or not request.keep_alive or self._draining:
            headers += ((b"connection", b"close"),)
        elif request.http10:
            headers += ((b"connection", b"keep-alive"),)
        return headers

    # deadlines and the end

    def _wait_for(self, what: str, seconds: float) -> None:
        self._deadline_is = what
        self._deadline_s = self._deadline_in(seconds)

    def _deadline_in(self, seconds: float) -> float | None:
        return self._loop.time() + seconds if seconds else None

    def check_deadlines(self, now_s: float) -> None:
        """Called for every connection now and then."""
        if self._takes_too_little(now_s):
            self.abort()  # it would not take an error either
            return
        if self.busy and self._left_unread():
            self.close()
            return
        if self._deadline_s is None or now_s < self._deadline_s:
            return
        self._deadline_s = None
        if self._deadline_is in ("keep-alive", "linger") or not self._begun_s:
            self.close()
            return
        part = "body" if self._in_body else "head"
        message = f"The {part} of the request did not arrive in time. Send it without long pauses."
        self._refuse_rest(Refusal(408, "request_timeout", message))

    def _takes_too_little(self, now_s: float) -> bool:
        """It reads its answer more slowly than the least rate, or not what is left when it is closed."""
        unread, limits = self._unread, self._limits
        if unread.deadline_s is not None and self._transport is not None:
            least_bytes = int(limits.least_read_rate * limits.send_timeout_s)
            unread.look(
                self._transport.get_write_buffer_size(),
                least_bytes,
                now_s + limits.send_timeout_s,
            )
        ends_s = unread.deadline_s if unread.waits else self._closing_deadline_s
        return ends_s is not None and now_s >= ends_s

    def _left_unread(self) -> bool:
        """The client has closed its end while nothing is read from it, so that the loop does not notice."""
        if self._transport is None or self._transport.is_reading():
            return False
        news = select.poll()
        news.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(news.poll(0))

    def _refuse_rest(self, refusal: Refusal) -> None:
        """Refuse what is still arriving, after the answers to what came before it."""
        self._handler.refused(self._begun_s or self._loop.time())
        if self.busy:
            self._reading(False)
            self._last_word = refusal
        else:
            self._say_last(refusal)

    def _say_last(self, refusal: Refusal) -> None:
        self._last_word = refusal
        transport = self._transport
        if transport is None:
            return
        transport.resume_reading()
        body = refusal_body(refusal, path_of(self._url.decode("latin-1")))
        headers = (*refusal_headers(refusal), (b"content-length", b"%d" % len(body)))
        transport.write(response_head(refusal.status, self._common() + headers) + body)
        # Closing now would reset the connection, and the client, still writing, would never read why.
        if transport.can_write_eof():
            transport.write_eof()
        self._wait_for("linger", _LINGER_S)

    def drain(self, *, patient: bool = False) -> None:
        """Close once the requests in hand, or on their way in, are answered.

        With patience one that was promised to stay is kept for one more request, or until its time is over.
        """
        self._draining = True
        self._promised = self._promised and patient
        if not patient and not self.busy and not self._begun_s:
            self.close()

    def end(self, refusal: Refusal) -> None:
        """Refuse a request that is still on its way in; one that is being answered, its handler ends."""
        if self._begun_s and not self.busy and self._last_word is None:
            self._refuse_rest(refusal)

    def close(self) -> None:
        """Close when all that was written is sent, or the client takes no more of it."""
        if self._transport is not None:
            self._closing_deadline_s = self._deadline_in(self._limits.send_timeout_s)
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection: what the client has is not the whole answer."""
        if self._transport is not None:
            self._transport.abort()

    def owes(self, request: Request) -> bool:
        """The answer to `request` is not complete."""
        return self._current is request

    @property
    def gone(self) -> bool:
        """The connection is lost."""
        return self._transport is None

    @property
    def paused(self) -> bool:
        """It does not read its answer as fast as it comes, and more is not kept for it."""
        return self._unread.holds_back

    @property
    def busy(self) -> bool:
        """A request is being answered, or waits to be."""
        return self._current is not None or bool(self._waiting)

    @property
    def _open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()


_EXPOSED = (b"access-control-expose-headers", b"x-autoglm-replica, x-request-id, retry-after")
"""What a page's scripts may read of an answer."""
_ANY_ORIGIN: Headers = ((b"access-control-allow-origin", b"*"), _EXPOSED)


def path_of(target: str) -> str:
    """The path of a request's target, which a proxy may send in absolute form (RFC 9112, 3.2.2)."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def refusal_headers(refusal: Refusal) -> Headers:
    headers: Headers = ((b"content-type", JSON_TYPE),)
    if refusal.retry_after_s is not None:
        headers += ((b"retry-after", b"%d" % refusal.retry_after_s),)
    return headers + refusal.headers


def _why_unparsed(error: httptools.HttpParserError) -> Refusal:
    """The refusal for what the parser would not take, or for what one of our callbacks raised in it."""
    cause = error.__context__
    if cause is None:
        return _bad_http(str(error))
    if isinstance(cause, Refusal):
        return cause
    log.error("a bug in the gateway ended a request", exc_info=cause)
    return internal_error()


def _allowed_origin(allowed: tuple[str, ...], request: Request | None) -> Headers:
    """The CORS header of an answer; a list of origins answers with the one that asks."""
    if "*" in allowed:
        return _ANY_ORIGIN
    origin = request.headers.get(b"origin", b"") if request is not None else b""
    if origin.decode("latin-1") not in allowed:
        return ()
    return ((b"access-control-allow-origin", origin), _EXPOSED, (b"vary", b"origin"))


def _bad_http(why: str) -> Refusal:
    return Refusal(400, "bad_http", f"This is not a valid HTTP/1.1 request: {why}.")


def _holds_too_much(limits: ConnectionLimits) -> Refusal:
    message = (
        "This service holds as much of requests and unread answers as it can: "
        f"{limits.max_held_bytes >> 20} MiB in a worker (--max-held-mb), {limits.max_client_bytes >> 20} MiB "
        "of one client (--max-client-mb). Try again when some of them are answered."
    )
    return Refusal(503, "too_much_held", message, type=RefusalType.OVERLOADED, retry_after_s=1)


def _head_too_large(limits: ConnectionLimits) -> Refusal:
    message = (
        f"The request's head is too large: at most {limits.max_head_bytes} bytes and "
        f"{limits.max_headers} headers are taken."
    )
    return Refusal(431, "headers_too_large", message)


def _body_too_large(limits: ConnectionLimits) -> Refusal:
    most = f"{limits.max_body_bytes / 1024 / 1024:.0f} MiB"
    return Refusal(413, "body_too_large", f"The body is larger than {most}, the most taken (--max-body-mb).")
