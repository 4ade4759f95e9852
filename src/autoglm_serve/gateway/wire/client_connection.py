"""The client's side of HTTP: one `ClientConnection` per socket.

Owns what a connection may do: deadlines, order of pipelined requests, back-pressure, and the bytes of every
answer. How requests are read is the matter of its `RequestReader`; what they mean is decided elsewhere
(`pages`, `dispatch`).
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.wire.connections import Connections
from autoglm_serve.gateway.wire.envelope import JSON_TYPE, refusal_body, too_many_connections, too_many_of_one
from autoglm_serve.gateway.wire.http import (
    LAST_CHUNK,
    Headers,
    Request,
    chunk,
    header_lines,
    is_event_stream,
    status_line,
)
from autoglm_serve.gateway.wire.limits import ConnectionLimits, holds_too_much
from autoglm_serve.gateway.wire.origins import origin_lines
from autoglm_serve.gateway.wire.peers import is_loopback
from autoglm_serve.gateway.wire.request_reader import RequestReader
from autoglm_serve.gateway.wire.unread import Unread

_LINGER_S = 1.0
_FIRST_S = 1.0
"""For the first request of a connection that was made just before its worker was told to leave."""
_TURN_BYTES = 16 * 1024
"""Read of one client in a turn of the loop: some hundred requests, or chunks of a byte, take milliseconds. A
body that says how long it is is read as it comes, which takes next to nothing."""
_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"
_MOST_BEING_REFUSED = 32
"""Connections beyond the limit that are told so; with more of them it is the telling that would cost."""


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


class ClientConnection(asyncio.Protocol):
    """One client. Requests are answered in the order in which they came, one at a time."""

    _site: str
    """Whose connection it is, for the bound of one client; empty where nobody is bounded."""
    _reader: RequestReader
    """Of what arrives. From `connection_made` on."""

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
        self._draining = False
        self._promised = False
        """The client was told with its last answer that the connection stays."""
        self._fresh = True
        """It has brought nothing yet: its first request may be on its way."""
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
        """For whom the bytes of its requests are held, once it is known."""
        self.introduced_as = ""
        """The address of its client, where a proxy that is trusted has told it."""
        self.for_many = False
        """A proxy sends the requests of many clients on it, and each says whose it is."""
        self._quantum_bytes = 0
        """Where the time of the body that arrives begins anew."""
        self._left: memoryview | None = None
        """What has come and is read in the next turn of the loop; nothing more is taken meanwhile."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        peer = transport.get_extra_info("peername")
        host = self.introduced_as or (peer[0] if isinstance(peer, tuple) else "")
        loopback = is_loopback(host)
        self._reader = RequestReader(self._limits, self, host, loopback=loopback)
        self._everyone.enter(self)
        self._site = "" if loopback or self.for_many else self._everyone.arrive(host)
        beyond = len(self._everyone) - self._limits.max_connections
        if beyond > _MOST_BEING_REFUSED:
            self.abort()
        elif beyond > 0 and not self._everyone.make_room():
            self._say_last(too_many_connections())
        elif self._everyone.at(self._site) > self._limits.most_of_one_client:
            self._say_last(too_many_of_one())
        else:
            self._wait_for("header", self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._everyone.leave(self)
        self._everyone.depart(self._site)
        self._unread.end()
        for request in (*self._waiting, *((self._current,) if self._current else ())):
            self._let_go(request)
        if self._reader.held_bytes:
            self._everyone.held.give(self._holder, self._reader.held_bytes)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        # Whom they hold holds us: the whole answer would stay in memory until the collector comes by.
        self._task = self.on_pause = self.on_resume = self._left = None
        self._reader.let_go()

    def data_received(self, data: bytes) -> None:
        if len(data) <= _TURN_BYTES:
            self._read(data)
        else:
            self._read_in_turns(memoryview(data))

    def _read_in_turns(self, data: memoryview) -> None:
        """As much as takes no time; the rest when others have had a turn, and what waits is answered."""
        if not self._reader.expects(len(data)):
            self._read(data[:_TURN_BYTES])
            data = data[_TURN_BYTES:]
        if not self._open or self._last_word is not None:
            return
        if self._reader.expects(len(data)):
            self._read(data)
            return
        self._left = data
        self._reading(False)
        if not self._waiting:
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """With what is left, or with what comes next."""
        left, self._left = self._left, None
        if left is not None and len(left) > _TURN_BYTES:
            self._read_in_turns(left)
        elif left is not None:
            self._read(left)
        if self._left is None and not self._waiting and self._open:
            self._reading(True)

    def _read(self, data: bytes | memoryview) -> None:
        if self._last_word is not None:
            return
        reader = self._reader
        try:
            reader.feed(data)
        except Refusal as refusal:
            self._refuse_rest(refusal)
            return
        if reader.begun_s:  # there is more to come
            self._await_rest()

    def _await_rest(self) -> None:
        """The time of a head or of a body begins, or that of a body begins anew, as enough of it has come."""
        reader = self._reader
        if reader.in_body:
            if self._deadline_s is None:
                self._await_body()
            elif reader.body_bytes >= self._quantum_bytes:
                self._begin_quantum()
        elif self._deadline_s is None and self._current is None:
            self._wait_for("header", self._limits.header_timeout_s)

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

    # request_reader.Arrivals

    def on_begin(self) -> float:
        self._fresh = False
        self._everyone.stir(self)
        self._deadline_s = None
        return self._loop.time()

    def on_head(self, headers: Mapping[bytes, bytes]) -> None:
        self._deadline_s = None
        if not self._holder or (
            self.for_many and not self.busy and not self._unread.waits
        ):  # for as long as the connection lives: what was taken is given back
            reader = self._reader
            self._holder = self._handler.holder(reader.peer, headers, loopback=reader.loopback)

    def hold(self, size_bytes: int) -> None:
        if not self._everyone.held.take(self._holder, size_bytes):
            raise holds_too_much(self._limits)

    def _let_go(self, request: Request) -> None:
        """It is answered, or will never be."""
        size_bytes, request.held_bytes = request.held_bytes, 0
        if size_bytes:
            self._everyone.held.give(self._holder, size_bytes)

    def on_request(self, request: Request) -> None:
        self._deadline_s = None
        if not self._open:
            self._let_go(request)
            return
        if not self.busy and not self._unread.waits:
            self._begin(request)
        else:  # one at a time, and none while the client does not read its answers
            self._waiting.append(request)
            self._reading(False)

    def _await_body(self) -> None:
        """A client that asks first sends its body when it is told to, which is when its turn has come."""
        reader = self._reader
        if reader.asks_first:
            if self.busy or self._transport is None:
                return
            reader.asks_first = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._begin_quantum()

    def _begin_quantum(self) -> None:
        """So much has to arrive within the time of a body. What came early is no credit."""
        limits = self._limits
        self._wait_for("body", limits.body_timeout_s)
        self._quantum_bytes = self._reader.body_bytes + int(limits.least_body_rate * limits.body_timeout_s)

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
        if request is not None:
            self._let_go(request)
        self.on_pause = self.on_resume = None
        self._chunked = self._streams = self.answering = False
        if not self._open or request is None:
            return
        if not request.keep_alive or (self._draining and not self._waiting and not self._promised):
            self.close()
        elif self._waiting or self._last_word is not None:
            self._loop.call_soon(self._next)
        elif self._reader.in_body:
            self._await_body()
        elif self._reader.begun_s:
            self._wait_for("header", self._limits.header_timeout_s)
        else:
            self._everyone.rest(self)
            self._wait_for("keep-alive", self._limits.keep_alive_s)

    def _next(self) -> None:
        if not self._open or self._current is not None or self._unread.waits:
            return
        if self._waiting:
            request = self._waiting.popleft()
            if not self._waiting and self._left is None:
                self._reading(True)
            elif not self._waiting:
                self._loop.call_soon(self._read_on)
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
            head = self._head(status) + header_lines(headers)
            if status != 204:  # it has no body, and may not say how long
                head += b"content-length: %d\r\n" % len(body)
            head += b"\r\n"
            hidden = self._current is not None and self._current.method == b"HEAD"
            self._transport.write(head if hidden else head + body)
        self._answered()

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        """An error envelope, in the form of the API that was asked."""
        path = self._current.path if self._current is not None else ""
        self.respond(refusal.status, _refusal_headers(refusal) + headers, refusal_body(refusal, path))

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        """The head of an answer whose length is not known, and its first piece."""
        if self._transport is None or self._current is None:
            return
        self.answering = True
        self._streams = is_event_stream(headers)
        self._chunked = not self._current.http10
        if not self._chunked:
            self._current.keep_alive = False
        head = self._head(status) + header_lines(headers)
        if self._chunked:
            self._transport.write(b"%btransfer-encoding: chunked\r\n\r\n%b" % (head, chunk(first)))
        else:
            self._transport.write(b"%b\r\n%b" % (head, first))

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

    def _head(self, status: int) -> bytes:
        """What every answer to the current request begins with."""
        request = self._current
        self._promised = not self._draining
        if request is None:
            return status_line(status) + origin_lines(self._limits.allow_origin, None) + _CLOSE
        head = status_line(status)
        if not request.path.startswith("/admin/"):
            head += origin_lines(self._limits.allow_origin, request)
        if request.id:
            head += b"x-request-id: %b\r\n" % request.id
        if not request.keep_alive or self._draining:
            return head + _CLOSE
        return head + _KEEP_ALIVE if request.http10 else head

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
        if self._deadline_is in ("keep-alive", "linger") or not self._reader.begun_s:
            self.close()
            return
        part = "body" if self._reader.in_body else "head"
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
        self._handler.refused(self._reader.begun_s or self._loop.time())
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
        body = refusal_body(refusal, self._reader.path)
        headers = (*_refusal_headers(refusal), (b"content-length", b"%d" % len(body)))
        transport.write(b"%b%b\r\n%b" % (self._head(refusal.status), header_lines(headers), body))
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
        if patient or self.busy or self._reader.begun_s:
            return
        if self._fresh:
            self._wait_for("header", _FIRST_S)
        else:
            self.close()

    def end(self, refusal: Refusal) -> None:
        """Refuse a request that is still on its way in; one that is being answered, its handler ends."""
        if self._reader.begun_s and not self.busy and self._last_word is None:
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


def _refusal_headers(refusal: Refusal) -> Headers:
    headers: Headers = ((b"content-type", JSON_TYPE),)
    if refusal.retry_after_s is not None:
        headers += ((b"retry-after", b"%d" % refusal.retry_after_s),)
    return headers + refusal.headers
