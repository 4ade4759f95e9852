"""One connection to a replica: which bytes are an answer, and when it may be used again. Nothing is sent."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.gateway.wire.upstream import Connection

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Transport(asyncio.Transport):
    """A socket that nobody reads from."""

    def __init__(self, end: socket.socket, unsent_bytes: int) -> None:
        super().__init__({"socket": end})
        self.unsent_bytes = unsent_bytes
        self.closed = False
        self.reading = True

    def writelines(self, list_of_data: Any) -> None: ...

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Heard:
    """A reply as it was told (`upstream.Reply`)."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.ended = False
        self.lost = ""

    def on_head(self, status: int, headers: Headers) -> None:
        self.status = status

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_end(self) -> None:
        self.ended = True

    def on_lost(self, reason: str) -> None:
        self.lost = reason


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def answered(
    ends: tuple[socket.socket, socket.socket], data: bytes, unsent_bytes: int = 0
) -> tuple[Heard, bool]:
    """What was heard of an answer that comes in one piece, and whether the connection is kept."""
    kept: list[Connection] = []
    connection, heard = Connection(kept.append), Heard()
    connection.connection_made(Transport(ends[0], unsent_bytes))
    connection.send((b"",), heard)
    connection.data_received(data)
    return heard, bool(kept)


def test_a_whole_answer_leaves_the_connection_to_the_next_request(ends: Any) -> None:
    heard, kept = answered(ends, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ANSWER)
    assert (heard.status, heard.body, heard.ended, kept) == (200, b"{}", True, True)


def test_an_answer_to_half_a_request_leaves_nothing_to_the_next(ends: Any) -> None:
    """The rest of the upload would go before it, to a replica that may not read it."""
    heard, kept = answered(ends, ANSWER, unsent_bytes=1)
    assert (heard.body, heard.ended, kept) == (b"{}", True, False)


@pytest.mark.parametrize(
    "data",
    [
        ANSWER + ANSWER.replace(b"200 OK", b"201 Created"),
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        ANSWER.replace(b"200 OK", b"700 Odd"),
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["two answers", "another protocol", "no status", "no HTTP"],
)
def test_what_is_not_one_answer_is_a_lost_replica(ends: Any, data: bytes, caplog: Any) -> None:
    with caplog.at_level(logging.ERROR):
        heard, kept = answered(ends, data)
    assert heard.lost
    assert not heard.ended
    assert not kept
    assert not caplog.records  # it is no bug of ours


class Reader(Heard):
    """One of several that a connection answers in turn. Slow ones pause when they are told something."""

    def __init__(self, slow_at: str) -> None:
        super().__init__()
        self.slow_at = slow_at
        self.connection: Connection | None = None

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        self._pause("body")

    def on_end(self) -> None:
        assert not self.over
        super().on_end()
        self._pause("end")

    def on_lost(self, reason: str) -> None:
        assert not self.over
        super().on_lost(reason)
        self._pause("lost")

    @property
    def over(self) -> bool:
        return self.ended or bool(self.lost)

    def _pause(self, now: str) -> None:
        if self.slow_at == now and self.connection is not None:
            self.connection.pause(self)


BODY = b"0123456789"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n" + BODY


class OneAfterTheOther(RuleBasedStateMachine):
    """A connection as a pool uses it: bytes cut anywhere, readers slow at any moment, before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = socket.socketpair()
        self.transport = Transport(self.ends[0], 0)
        self.idle: list[Connection] = []
        self.connection = Connection(self.idle.append)
        self.connection.connection_made(self.transport)
        self.idle.append(self.connection)
        self.readers: list[Reader] = []
        self.left = b""
        self.dropped: list[Reader] = []

    def teardown(self) -> None:
        for end in self.ends:
            end.close()

    @property
    def busy(self) -> bool:
        return bool(self.left)

    @precondition(lambda self: self.idle and not self.transport.closed)
    @rule(slow_at=st.sampled_from(["", "body", "end", "lost"]))
    def ask(self, slow_at: str) -> None:
        assert self.idle.pop() is self.connection
        assert not self.idle, "kept twice"
        assert self.transport.reading, "an idle connection that nobody reads from"
        reader = Reader(slow_at)
        reader.connection = self.connection
        self.readers.append(reader)
        self.connection.send((b"",), reader)
        self.left = WHOLE

    @precondition(lambda self: self.busy and self.transport.reading and not self.transport.closed)
    @rule(size=st.integers(1, len(WHOLE)))
    def bytes_come(self, size: int) -> None:
        piece, self.left = self.left[:size], self.left[size:]
        self.connection.data_received(piece)

    @precondition(lambda self: self.readers)
    @rule(back=st.integers(0, 3), what=st.sampled_from(["pause", "resume", "pause"]))
    def reader_says(self, back: int, what: str) -> None:
        """Also one whose answer was over long ago."""
        reader = self.readers[-1 - back % len(self.readers)]
        getattr(self.connection, what)(reader)

    @precondition(lambda self: self.readers)
    @rule(back=st.integers(0, 8))
    def reader_leaves(self, back: int) -> None:
        reader = self.readers[-1 - back % len(self.readers)]
        was_busy, was_closed = self.busy, self.transport.closed
        self.connection.drop(reader)
        if reader.over or reader in self.dropped:
            assert (self.busy, self.transport.closed) == (was_busy, was_closed), "it was not its own any more"
        else:
            self.dropped.append(reader)
            self.left = b""
            assert self.transport.closed

    @precondition(lambda self: not self.busy and not self.transport.closed)
    @rule(data=st.sampled_from([b"x", WHOLE]))
    def bytes_come_unasked(self, data: bytes) -> None:
        self.connection.data_received(data)
        assert self.transport.closed

    @rule(broken=st.booleans())
    def it_is_lost(self, broken: bool) -> None:
        self.transport.closed = True
        self.left = b""
        self.connection.connection_lost(ConnectionResetError() if broken else None)

    @invariant()
    def nobody_is_harmed_by_another(self) -> None:
        for reader in self.readers[:-1]:
            assert reader.over or reader in self.dropped
        for reader in self.readers:
            assert not reader.ended or (reader.status, reader.body) == (200, BODY)
            assert not (reader.ended and reader.lost)
        if not self.busy and not self.transport.closed:
            assert self.transport.reading


TestOneAfterTheOther = OneAfterTheOther.TestCase
