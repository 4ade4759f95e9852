"""Connections to replicas: keep-alive, pooled by address, one request at a time on each.

Knows HTTP, not what the bytes mean: a `Reply` gets the head, the body as it arrives, and one ending.
"""

import asyncio
import logging
import select
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from autoglm_serve.gateway.wire.http import Headers, ends_with_connection

log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 64 * 1024
_LAST_STATUS = 599
_IDLE_LIMIT = 128  # per address
_IDLE_S = 4.0  # below uvicorn's and cpp-httplib's keep-alive of 5 s, so that we close first
_CONNECT_TIMEOUT_S = 5.0


class Reply(Protocol):
    """Where an upstream's answer goes. After `on_end` or `on_lost` nothing more is called."""

    def on_head(self, status: int, headers: Headers) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_lost(self, reason: str) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to a replica."""

    def __init__(self, on_idle: Callable[["Connection"], None]) -> None:
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._news = select.poll()
        """Whether there is anything to read that the loop has not read yet."""
        self._reply: Reply | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_body = False
        self._parts: list[bytes] = []
        self._complete = False
        self._keep_alive = False
        self._paused = False
        self.used = 0
        """Requests it has carried."""
        self.idle_since_s = 0.0

    def send(self, data: tuple[bytes, ...], reply: Reply) -> None:
        """Send a whole request; its answer goes to `reply`. Only on an open, idle connection."""
        assert self._reply is None, "a connection carries one request at a time"
        self._reply = reply
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._head_bytes = 0
        self._in_body = False
        self._complete = False
        self._keep_alive = False
        self.used += 1
        assert self._transport is not None
        self._transport.writelines(data)

    def abort(self) -> None:
        """Drop the connection at once: the engine sees its client leave and stops generating."""
        self._reply = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._transport.pause_reading()
            self._paused = True

    def resume(self) -> None:
        if self._transport is not None and self._paused:
            self._transport.resume_reading()
            self._paused = False

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
        self._news.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._parser is None:
            self.abort()  # an answer that nobody asked for
            return
        reply = self._reply
        try:
            self._take(data, self._parser, reply)
        except Exception:  # the loop would log it and leave whoever waits for the reply waiting
            log.exception("a bug in the gateway ended a reply")
            self.abort()
            reply.on_lost("a bug in the gateway")

    def _take(self, data: bytes, parser: httptools.HttpResponseParser, reply: Reply) -> None:
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"not HTTP: {error.__context__ or error}")
            return
        except httptools.HttpParserUpgrade:
            self._lose("it went over to another protocol, which nobody asked for")
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._lose("the head of its answer has no end")
            return
        if self._parts:
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            reply.on_body(body)
        if self._complete and self._reply is not None:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._reply is None:
            return
        if exc is None and self._in_body and ends_with_connection(self._headers):
            self._finish()
        else:
            self._lose(f"connection lost: {exc}" if exc else "connection closed before the end of the reply")

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:  # whose answer was the first, then?
            raise ValueError("more than one answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # a trailer is no header
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status > _LAST_STATUS:
            raise ValueError(f"there is no status {status}")
        if status >= 200 and self._reply is not None:
            self._in_body = True
            self._reply.on_head(status, tuple(self._headers))

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._parser.get_status_code() < 200:  # 100 Continue: the real head follows
            self._headers = []
        else:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # it knows only now

    @property
    def _unsent_bytes(self) -> int:
        """Of a request that was answered early: who did not want it may never read the rest."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _finish(self) -> None:
        reply, self._reply = self._reply, None
        self._parser = None
        self.resume()  # the next client has done nothing to be kept waiting
        if self._keep_alive and self.open and not self._unsent_bytes:
            self._on_idle(self)
        else:
            self.close()
        if reply is not None:
            reply.on_end()

    def _lose(self, reason: str) -> None:
        reply, self._reply = self._reply, None
        self.abort()
        if reply is not None:
            reply.on_lost(reason)


class Pool:
    """The connections of one worker, idle ones ready to be used again, newest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: dict[str, list[Connection]] = {}

    def idle(self, base_url: str) -> Connection | None:
        """An open connection to `base_url` that carries nothing, if there is one."""
        connections = self._idle.get(base_url)
        while connections:
            connection = connections.pop()
            if connection.quiet:
                return connection
            connection.close()
        return None

    async def connect(self, base_url: str) -> Connection:
        """A new connection. Raises OSError; TimeoutError is one."""

        def make() -> Connection:
            return Connection(lambda connection: self._keep(base_url, connection))

        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            if base_url.startswith("unix:"):
                _, protocol = await self._loop.create_unix_connection(make, base_url.removeprefix("unix:"))
            else:
                tls, host, port = split_base_url(base_url)
                _, protocol = await self._loop.create_connection(make, host, port, ssl=tls or None)
        return protocol

    def forget(self, base_url: str) -> None:
        """Close what is idle to an address that is no longer there."""
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
