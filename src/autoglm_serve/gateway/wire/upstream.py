"""Connections to replicas: keep-alive, pooled by address, one request at a time on each.

Knows HTTP, not what the bytes mean: a `Reply` gets the head, the body as it arrives, and one ending.
"""

import asyncio
import logging
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

import httptools

from autoglm_serve.gateway.wire.connection_state import ConnectionEvent, Effect, State, after
from autoglm_serve.gateway.wire.envelope import too_many_connections
from autoglm_serve.gateway.wire.http import Headers, ends_with_connection
from autoglm_serve.launch import tcp_sockets
from autoglm_serve.launch.descriptors import is_shortage
from autoglm_serve.launch.ports import LOOPBACK

log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 64 * 1024
_LAST_STATUS = 599
_IDLE_LIMIT = 128  # per address
_SEEN_OURS_S = 0.5
"""For which a listener that was ours is taken to be: its port is free for others once it has died."""
_IDLE_S = 4.0  # below uvicorn's and cpp-httplib's keep-alive of 5 s, so that we close first
_CONNECT_TIMEOUT_S = 5.0
_FULL_QUEUE_LOOK_S = 0.005
_UNREAD_BYTES = 256 * 1024
"""Of an answer, taken by the kernel while nobody reads it: left to itself it takes tens of megabytes."""
_NOBODY_WAITS = (State.IDLE, State.OVER)


class Reply(Protocol):
    """Where an upstream's answer goes. After `on_end` or `on_lost` nothing more is called."""

    def on_head(self, status: int, headers: Headers) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_lost(self, reason: str) -> None: ...


class _Reading:
    """One answer while it is read: made with its request, and let go with it, so that nothing of it stays."""

    __slots__ = (
        *("complete", "head_bytes", "headers", "in_body", "keep_alive", "on_body", "parser", "parts"),
        *("reply", "unparsed_bytes"),
    )

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_bytes = 0
        self.unparsed_bytes = 0
        """Before the body: one endless line is kept by the parser, which calls nobody."""
        self.in_body = False
        self.parts: list[bytes] = []
        self.on_body = self.parts.append  # a callback of the parser's, for every chunk of a stream
        self.complete = False
        self.keep_alive = False
        self.parser = httptools.HttpResponseParser(self)

    def let_go(self) -> None:
        del self.parser  # it holds us as we hold it

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self.complete:  # whose answer was the first, then?
            raise ValueError("more than one answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:  # a trailer is no header
            return
        self.head_bytes += len(name) + len(value)
        if self.head_bytes > _MAX_HEAD_BYTES:
            raise ValueError("the head of its answer has no end")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status > _LAST_STATUS:
            raise ValueError(f"there is no status {status}")
        if status >= 200:
            self.in_body = True
            self.reply.on_head(status, tuple(self.headers))

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() < 200:  # 100 Continue: the real head follows
            self.headers = []
        else:
            self.complete = True
            self.keep_alive = self.parser.should_keep_alive()  # it knows only now


class Connection(asyncio.Protocol):
    """One connection to a replica. What may follow what is in `connection_state`; here it is done."""

    def __init__(self, on_idle: Callable[["Connection"], None]) -> None:
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._news = select.poll()
        """Whether there is anything to read that the loop has not read yet."""
        self._state = State.IDLE
        self._reading: _Reading | None = None
        self.used = 0
        """Requests it has carried."""
        self.idle_since_s = 0.0

    def send(self, data: tuple[bytes | memoryview, ...], reply: Reply) -> None:
        """Send a whole request; its answer goes to `reply`. Only on an open, idle connection."""
        assert self._state is State.IDLE, "a connection carries one request at a time"
        assert self._transport is not None
        self._move(ConnectionEvent.SEND)
        self._reading = _Reading(reply)
        self.used += 1
        self._transport.writelines(data)

    def pause(self, reply: Reply) -> None:
        """Read nothing for now; has no effect for whose answer is over."""
        if self._answers(reply):
            self._move(ConnectionEvent.PAUSE)

    def resume(self, reply: Reply) -> None:
        if self._answers(reply):
            self._move(ConnectionEvent.RESUME)

    def drop(self, reply: Reply) -> None:
        """Nobody wants the answer: cut at once, so that the engine sees its client leave and stops.

        Has no effect for whose answer is over: the connection may be somebody else's.
        """
        if self._answers(reply):
            self._move(ConnectionEvent.DROP)

    def close(self) -> None:
        self._move(ConnectionEvent.CLOSE)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def quiet(self) -> bool:
        """Open, and nothing has come that nobody asked for. A replica that died just now has closed it:
        what is sent there would look as if it had died of that."""
        return self.open and not self._news.poll(0)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        end = transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BYTES)
        self._news.register(end.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is None:
            self._move(ConnectionEvent.STRAY)
            return
        try:
            self._take(data, reading)
        except Exception:  # the loop would log it and leave whoever waits for the reply waiting
            log.exception("a bug in the gateway ended a reply")
            self._move(ConnectionEvent.DROP)
            reading.reply.on_lost("a bug in the gateway")

    def _take(self, data: bytes, reading: _Reading) -> None:
        try:
            reading.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._move(ConnectionEvent.BREAK, f"not HTTP: {error.__context__ or error}")
            return
        except httptools.HttpParserUpgrade:
            self._move(ConnectionEvent.BREAK, "it went over to another protocol, which nobody asked for")
            return
        if not reading.in_body:
            reading.unparsed_bytes += len(data)
            if reading.unparsed_bytes > _MAX_HEAD_BYTES:
                self._move(ConnectionEvent.BREAK, "the head of its answer has no end")
            return
        parts = reading.parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            reading.reply.on_body(body)
        if reading.complete and self._reading is reading:
            self._move(ConnectionEvent.WHOLE if self._reusable(reading) else ConnectionEvent.LAST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        reading = self._reading
        if reading is None:
            self._move(ConnectionEvent.GONE)
        elif exc is None and reading.in_body and ends_with_connection(dict(reading.headers)):
            self._move(ConnectionEvent.LAST)
        else:
            why = f"connection lost: {exc}" if exc else "connection closed before the end of the reply"
            self._move(ConnectionEvent.BREAK, why)

    # how

    def _answers(self, reply: Reply) -> bool:
        return self._reading is not None and self._reading.reply is reply

    def _reusable(self, reading: _Reading) -> bool:
        """Not with bytes unsent of a request that was answered early: who did not want it may never read
        the rest."""
        unsent_bytes = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return reading.keep_alive and self.open and not unsent_bytes

    def _move(self, event: ConnectionEvent, reason: str = "") -> None:
        self._state, effects = after(self._state, event)
        reading = self._reading
        if reading is not None and self._state in _NOBODY_WAITS:
            self._reading = None
            reading.let_go()
        for effect in effects:
            match effect:
                case Effect.KEEP:
                    self._on_idle(self)
                case Effect.TELL_END:
                    assert reading is not None
                    reading.reply.on_end()
                case Effect.TELL_LOST:
                    assert reading is not None
                    reading.reply.on_lost(reason or "it is no longer used")
                case _:
                    self._to_transport(effect)

    def _to_transport(self, effect: Effect) -> None:
        transport = self._transport
        if transport is None:
            return
        match effect:
            case Effect.HOLD:
                transport.pause_reading()
            case Effect.READ:
                transport.resume_reading()
            case Effect.CLOSE:
                transport.close()
            case Effect.CUT:
                transport.abort()


class Pool:
    """The connections of one worker, idle ones ready to be used again, newest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: dict[str, list[Connection]] = {}
        self._seen_ours_s: dict[str, float] = {}
        """When it was last looked up that a process of this account listens there."""

    def idle(self, base_url: str) -> Connection | None:
        """An open connection to `base_url` that carries nothing, if there is one."""
        connections = self._idle.get(base_url)
        while connections:
            connection = connections.pop()
            if connection.quiet:
                return connection
            connection.close()
        return None

    async def connect(self, base_url: str, *, ours: bool = False) -> Connection:
        """A new connection; to nobody but this account, where a process of `ours` is meant.

        Raises OSError (TimeoutError is one) where the replica takes none, and Refusal where this machine has
        no socket for it.
        """
        try:
            return await self._connect(base_url, ours=ours)
        except OSError as error:
            if not is_shortage(error):
                raise
        self.close()  # what is idle holds what is short
        await asyncio.sleep(0)
        try:
            return await self._connect(base_url, ours=ours)
        except OSError as error:
            if not is_shortage(error):
                raise
            log.error("no socket for a connection to a replica: %s", error.strerror)
            raise too_many_connections() from error

    async def takes_connections(self, base_url: str) -> bool:
        """Whether somebody listens there now."""
        try:
            connection = await self._connect(base_url)
        except OSError as error:
            return is_shortage(error)  # of ours, which says nothing of it
        connection.close()
        return True

    async def _connect(self, base_url: str, *, ours: bool = False) -> Connection:
        def make() -> Connection:
            return Connection(lambda connection: self._keep(base_url, connection))

        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            if base_url.startswith("unix:"):
                protocol = await self._over_unix(make, base_url.removeprefix("unix:"))
            else:
                tls, host, port = split_base_url(base_url)
                _, protocol = await self._loop.create_connection(make, host, port, ssl=tls or None)
                if ours and host == LOOPBACK and not self._is_ours(base_url, port):
                    protocol.close()
                    raise ConnectionRefusedError("another account listens at its port")
        return protocol

    def _is_ours(self, base_url: str, port: int) -> bool:
        """Looking takes a millisecond, which a burst of connections should not pay each."""
        now_s = self._loop.time()
        if now_s - self._seen_ours_s.get(base_url, -_SEEN_OURS_S) < _SEEN_OURS_S:
            return True
        if not tcp_sockets.is_ours(port):
            return False
        self._seen_ours_s[base_url] = now_s
        return True

    async def _over_unix(self, make: Callable[[], Connection], path: str) -> Connection:
        """Where the queue of who listens is full, TCP waits for room; a unix socket says so at once, and
        asyncio takes that for a connection."""
        end = socket.socket(socket.AF_UNIX)
        try:
            end.setblocking(False)
            while True:
                with suppress(BlockingIOError):
                    end.connect(path)
                    break
                await asyncio.sleep(_FULL_QUEUE_LOOK_S)
            _, protocol = await self._loop.create_unix_connection(make, sock=end)
        except BaseException:
            end.close()
            raise
        return protocol

    def forget(self, base_url: str) -> None:
        """Close what is idle to an address that is no longer there."""
        self._seen_ours_s.pop(base_url, None)
        for connection in self._idle.pop(base_url, ()):
            connection.close()

    def sweep(self) -> None:
        """Close connections that have been idle too long; called now and then."""
        oldest_s = self._loop.time() - _IDLE_S
        for connections in self._idle.values():
            stale = [connection for connection in connections if connection.idle_since_s < oldest_s]
            connections[:] = [
                connection
                for connection in connections
                if connection.idle_since_s >= oldest_s and connection.open
            ]
            for connection in stale:
                connection.close()

    def close(self) -> None:
        for base_url in list(self._idle):
            self.forget(base_url)

    def _keep(self, base_url: str, connection: Connection) -> None:
        connections = self._idle.setdefault(base_url, [])
        if len(connections) >= _IDLE_LIMIT:
            connection.close()
            return
        connection.idle_since_s = self._loop.time()
        connections.append(connection)


def split_base_url(base_url: str) -> tuple[bool, str, int]:
    """(TLS, host, port) of http://host[:port] or https://host[:port]."""
    scheme, _, rest = base_url.partition("://")
    authority = rest.partition("/")[0]
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host, port = authority, "443" if scheme == "https" else "80"
    return scheme == "https", host.strip("[]"), int(port)
