"""What a request costs the gateway, counted in calls: they are the same on every machine and in every run.

Processor time follows them. A bound here is what a request takes today and some room: what needs more is
looked at twice, and who has saved some lowers it.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import cast

import pytest
import uvloop

from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.connections import Connections
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.upstream import Connection, Pool
from autoglm_serve.gateway.worker import Requests
from tests.gateway.exchange.test_dispatch import worker_on
from tests.gateway.gateway_process import fleet_of
from tests.gateway.raw_http import chat, post

PLAIN = 435
"""Calls for one answer in one piece, of Python's and of C's functions."""
STREAM = 550
"""For a stream of three events."""
EVENT = 15
"""For each event more."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
ANSWER = json.dumps(
    {"choices": [CHOICE], "usage": {"prompt_tokens": 300, "completion_tokens": 16, "total_tokens": 316}}
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)


def event(delta: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    return chunk(f'data: {{"id":"a","object":"chat.completion.chunk","choices":[{choice}]}}\n\n'.encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(events: int) -> Sequence[bytes]:
    """What an engine writes, each as one read."""
    last = event("{}", '"stop"') + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return (HEAD, *[event('{"content":" token"}')] * events, last)


class Wire:
    """One end of a connection: keeps what is written."""

    def __init__(self) -> None:
        self.ends = socket.socketpair()
        self.written = b""

    def get_extra_info(self, name: str) -> object:
        return self.ends[0] if name == "socket" else ("127.0.0.1", 1)

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        for end in self.ends:
            end.close()

    abort = close


class EngineWire(Wire):
    """The way to an engine, which answers at once."""

    def __init__(self, engine: "Engine", connection: Connection) -> None:
        super().__init__()
        self._engine = engine
        self._connection = connection

    def writelines(self, pieces: Sequence[bytes]) -> None:
        for read in self._engine.answer:
            self._engine.loop.call_soon(self._connection.data_received, read)


class Engine(Pool):
    """A pool whose connections all lead to one engine of the test's."""

    answer: Sequence[bytes] = ()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.loop = loop

    async def connect(self, base_url: str, *, ours: bool = False) -> Connection:
        connection = Connection(lambda idle: self._keep(base_url, idle))
        connection.connection_made(cast("asyncio.Transport", EngineWire(self, connection)))
        return connection


class Rig:
    """A whole worker, with one client and one engine."""

    def __init__(self, folder: Path) -> None:
        self._loop = uvloop.new_event_loop()
        self._wire = Wire()
        worker = worker_on(self._loop, folder, fleet_of(["http://127.0.0.1:1"]))
        self._engine = worker.pool = Engine(self._loop)
        limits = ConnectionLimits()
        self._client = ClientConnection(Requests(worker), limits, self._loop, Connections(limits))
        self._client.connection_made(cast("asyncio.Transport", self._wire))

    def ask(self, answer: Sequence[bytes], **fields: object) -> int:
        """Ask, and return how many calls that took."""
        self._engine.answer, self._wire.written = answer, b""
        return self._loop.run_until_complete(self._asked(post(chat(**fields))))

    async def _asked(self, request: bytes) -> int:
        with counted() as calls:
            self._client.data_received(request)
            turns = 0
            while self._client.busy:
                turns += 1
                await asyncio.sleep(0)
        assert self._wire.written.startswith(b"HTTP/1.1 200 OK"), self._wire.written
        return calls() - 3 * turns  # of which the test's own

    def close(self) -> None:
        self._engine.close()
        self._wire.close()
        self._loop.close()


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    count = 0

    def note(frame: FrameType, what: str, argument: object) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield lambda: count
    finally:
        sys.setprofile(None)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    for answer, streams in ((WHOLE, False), (b"".join(stream(3)), True)):
        rig.ask((answer,), stream=streams)  # what is found out once is known
    yield rig
    rig.close()


def test_an_answer_in_one_piece_takes_few_calls(rig: Rig) -> None:
    assert rig.ask((WHOLE,)) <= PLAIN


def test_a_stream_takes_few_calls_and_each_event_hardly_any(rig: Rig) -> None:
    short = rig.ask(stream(3), stream=True)
    assert short <= STREAM
    assert rig.ask(stream(103), stream=True) - short <= 100 * EVENT
