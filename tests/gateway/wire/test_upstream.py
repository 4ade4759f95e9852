"""One connection to a replica: which bytes are an answer, and when it may be used again. Nothing is sent."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.gateway.wire.upstream import Connection

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Transport(asyncio.Transport):
    """A socket that nobody reads from."""

    def __init__(self, end: socket.socket, unsent_bytes: int) -> None:
        super().__init__({"socket": end})
        self.unsent_bytes = unsent_bytes
        self.closed = False

    def writelines(self, list_of_data: Any) -> None: ...

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
