"""What arrives on a connection: in order at every cut, and a little at a time where it is dear to read."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.client_connection import _TURN_BYTES, ClientConnection
from autoglm_serve.gateway.wire.connections import Connections
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.limits import ConnectionLimits

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"


def sized(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class Wire(asyncio.Transport):
    """A socket that brings what a test says, while somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.closing = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("10.0.0.1", 1) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_reading(self) -> bool:
        return self.reads

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Desk:
    """Answers each request with its number: at once, or in a later turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, later: bool) -> None:
        self.loop, self.later = loop, later
        self.bodies: list[bytes] = []
        self.in_this_turn = 0

    def handle(self, client: ClientConnection, request: Request) -> asyncio.Task[None] | None:
        self.bodies.append(request.body)
        self.in_this_turn += 1
        if self.later:
            return self.loop.create_task(self._answer(client))
        client.respond(200, (), b"")
        return None

    async def _answer(self, client: ClientConnection) -> None:
        await asyncio.sleep(0)
        client.respond(200, (), b"")

    def holder(self, peer: str, headers: Mapping[bytes, bytes], *, loopback: bool) -> str:
        return peer

    def refused(self, begun_s: float) -> None: ...


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with closing(asyncio.new_event_loop()) as loop:
        yield loop


def arrive(loop: asyncio.AbstractEventLoop, desk: Desk, pieces: list[bytes]) -> Wire:
    """Each piece when the connection reads; returns when all is answered."""
    limits, wire = ConnectionLimits(), Wire()
    connection = ClientConnection(desk, limits, loop, Connections(limits))
    connection.connection_made(wire)

    async def play() -> None:
        for piece in pieces:
            for _ in range(100_000):
                if wire.reads:
                    break
                await asyncio.sleep(0)
            connection.data_received(piece)
        quiet = 0
        while quiet < 5:
            before = len(wire.written)
            await asyncio.sleep(0)
            quiet = quiet + 1 if wire.reads and before == len(wire.written) else 0

    loop.run_until_complete(play())
    connection.connection_lost(None)
    return wire


BODIES = st.lists(
    st.tuples(st.integers(0, 3 * _TURN_BYTES), st.sampled_from([0, 1, 700, _TURN_BYTES, 50_000])), max_size=6
)


@given(BODIES, st.booleans(), st.data())
def test_requests_are_answered_in_their_order_however_they_are_cut(
    bodies: list[tuple[int, int]], later: bool, data: st.DataObject
) -> None:
    wanted = [bytes([65 + number]) * size for number, (size, _) in enumerate(bodies)]
    stream = b"".join(
        chunked(body, by) if by > 1 or (by and len(body) < 3_000) else sized(body)
        for body, (_, by) in zip(wanted, bodies, strict=True)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if b > a]
    with closing(asyncio.new_event_loop()) as loop:
        desk = Desk(loop, later=later)
        wire = arrive(loop, desk, pieces)
    assert desk.bodies == wanted
    assert wire.written.count(b"HTTP/1.1 200") == len(wanted)


@pytest.mark.parametrize("later", [False, True])
def test_thousands_of_requests_in_one_read_leave_others_their_turns(
    loop: asyncio.AbstractEventLoop, later: bool
) -> None:
    desk, most = Desk(loop, later=later), 0
    one = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"

    async def look() -> None:
        nonlocal most
        while True:
            most, desk.in_this_turn = max(most, desk.in_this_turn), 0
            await asyncio.sleep(0)

    looking = loop.create_task(look())
    wire = arrive(loop, desk, [one * (256 * 1024 // len(one))])
    looking.cancel()
    assert len(desk.bodies) == 256 * 1024 // len(one) == wire.written.count(b"HTTP/1.1 200")
    assert most <= _TURN_BYTES // len(one) + 1


def test_of_a_body_that_says_how_long_it_is_all_is_read_at_once(loop: asyncio.AbstractEventLoop) -> None:
    desk, limits, wire = Desk(loop, later=False), ConnectionLimits(), Wire()
    connection = ClientConnection(desk, limits, loop, Connections(limits))
    connection.connection_made(wire)
    connection.data_received(sized(b"x" * 256 * 1024))
    assert [len(body) for body in desk.bodies] == [256 * 1024]


def test_what_a_client_that_is_gone_had_sent_is_not_read(loop: asyncio.AbstractEventLoop) -> None:
    desk, limits, wire = Desk(loop, later=False), ConnectionLimits(), Wire()
    connection = ClientConnection(desk, limits, loop, Connections(limits))
    connection.connection_made(wire)
    connection.data_received(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 5_000)
    answered = len(desk.bodies)
    connection.connection_lost(None)
    loop.run_until_complete(asyncio.sleep(0))
    assert len(desk.bodies) == answered < 5_000


def test_a_connection_that_was_just_made_may_bring_its_first_request_to_a_worker_that_leaves(
    loop: asyncio.AbstractEventLoop,
) -> None:
    desk, limits, wire = Desk(loop, later=False), ConnectionLimits(), Wire()
    connection = ClientConnection(desk, limits, loop, Connections(limits))
    connection.connection_made(wire)
    connection.drain()
    assert not wire.closing
    connection.data_received(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"HTTP/1.1 200" in wire.written
    assert b"connection: close" in wire.written
    assert wire.closing


def test_one_that_brings_nothing_or_has_had_its_answer_is_closed(loop: asyncio.AbstractEventLoop) -> None:
    desk, limits, wire, other = Desk(loop, later=False), ConnectionLimits(), Wire(), Wire()
    everyone = Connections(limits)
    silent, answered = (ClientConnection(desk, limits, loop, everyone) for _ in range(2))
    silent.connection_made(wire)
    answered.connection_made(other)
    answered.data_received(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    silent.drain()
    answered.drain()
    assert other.closing
    silent.check_deadlines(loop.time() + 0.5)
    assert not wire.closing
    silent.check_deadlines(loop.time() + 1.5)
    assert wire.closing
