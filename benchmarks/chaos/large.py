"""Large whole answers to readers fast and slow, and what anybody else waits for them.

Each answer has between 0.1 and 20 MB. Some clients read at once, some in sips, some stop in the middle and
leave. Connections to the engine are used again after each. Meanwhile somebody asks for small answers, through
the same worker and on the same connections, and for `/health`, which needs no engine: nobody's wait may be
longer because of others' answers. What the same small requests wait without the load, and what a timer waits
in the same process under it, say how much of it is this machine's.
"""

import argparse
import asyncio
import contextlib
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.chaos.client import Answer, chat, read_answer, request
from benchmarks.chaos.stand import percentile
from benchmarks.machine import hardware_and_load
from tests.gateway.gateway_process import GatewayProcess, running_gateway

_SMALLEST_BYTES, _LARGEST_BYTES = 100_000, 20_000_000
_SIP_BYTES, _SIP_S = 256 * 1024, 0.01
_PIECE_BYTES = 128 * 1024
_HELD_S = 0.5  # by one who stops reading
_PROBE_EVERY_S = 0.02
_LONGEST_S = 0.050
_PAD = b"x" * _PIECE_BYTES


class Engine(asyncio.Protocol):
    """Answers each request with a completion of `max_tokens` bytes, from memory, as fast as it is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._got = b""
        self._left_bytes, self._last = 0, b""
        self._full = False

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, _, body = self._got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        if len(body) < length:
            return
        self._got = b""
        size = int(body.partition(b'"max_tokens": ')[2].rstrip(b"}"))
        first, last = b'{"choices":[{"index":0,"message":{"content":"', b'"},"finish_reason":"stop"}]}'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (len(first) + size + len(last)) + first)
        self._left_bytes, self._last = size, last
        self._write()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._write()

    def _write(self) -> None:
        """In pieces, one a turn: others are answered between them."""
        if self._full or self._transport.is_closing():
            return
        piece = _PAD[: min(self._left_bytes, _PIECE_BYTES)]
        self._left_bytes -= len(piece)
        if piece:
            self._transport.write(piece)
            asyncio.get_running_loop().call_soon(self._write)
        else:
            last, self._last = self._last, b""
            self._transport.write(last)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def _engine() -> Iterator[int]:
    argv = [sys.executable, "-m", "benchmarks.chaos.large"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@dataclass(slots=True, kw_only=True)
class Waits:
    """What small requests and a timer waited."""

    chat_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    timer_s: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        rows = (("chat", self.chat_s), ("health", self.health_s), ("timer", self.timer_s))
        told = (
            f"{kind} {percentile(row, 50) * 1e3:.1f} / {percentile(row, 99) * 1e3:.1f} / {max(row) * 1e3:.1f}"
            for kind, row in rows
        )
        return f"{name}: waits p50 / p99 / longest in ms: {', '.join(told)} ({len(self.chat_s)} chats)"


async def watch(port: int, waits: Waits) -> None:
    """Small requests on one connection, until cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    small, health = request(whole(1)), b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    try:
        while True:
            for message, row in ((small, waits.chat_s), (health, waits.health_s)):
                begun_s = time.perf_counter()
                writer.write(message)
                await read_answer(reader, Answer())
                row.append(time.perf_counter() - begun_s)
            begun_s = time.perf_counter()
            await asyncio.sleep(_PROBE_EVERY_S)
            waits.timer_s.append(time.perf_counter() - begun_s - _PROBE_EVERY_S)
    finally:
        writer.transport.abort()


def whole(size_bytes: int) -> dict[str, object]:
    fields = chat("x", stream=False)
    return {**fields, "max_tokens": size_bytes}  # the last field: the stand-in looks for it there


async def reader(port: int, kind: str, size_bytes: int, outcomes: Counter[str]) -> None:
    """One large answer, read as this kind of client does."""
    stream, writer = await asyncio.open_connection("127.0.0.1", port, limit=_SIP_BYTES)
    try:
        writer.write(request(whole(size_bytes)))
        head = await stream.readuntil(b"\r\n\r\n")
        left = size_bytes if b" 200 " in head else 0
        while left > 0:
            piece = await stream.read(_SIP_BYTES)
            left -= len(piece)
            if not piece:
                outcomes[f"{kind}: cut"] += 1
                return
            if kind == "slow":
                await asyncio.sleep(_SIP_S)
            elif kind == "leaves":
                await asyncio.sleep(_HELD_S)
                break
        outcomes[f"{kind}: {'ok' if b' 200 ' in head else head[9:12].decode()}"] += 1
    except (OSError, EOFError) as error:
        outcomes[f"{kind}: {type(error).__name__}"] += 1
    finally:
        writer.transport.abort()


async def load(port: int, arguments: argparse.Namespace, waits: Waits) -> Counter[str]:
    dice, outcomes, places = (
        random.Random(arguments.seed),
        Counter[str](),
        asyncio.Semaphore(arguments.readers),
    )

    async def one() -> None:
        size = math.exp(dice.uniform(math.log(_SMALLEST_BYTES), math.log(_LARGEST_BYTES)))
        kind = dice.choice(("fast", "fast", "slow", "leaves"))
        async with places:
            await reader(port, kind, int(size), outcomes)

    watching = asyncio.create_task(watch(port, waits))
    async with asyncio.TaskGroup() as group:
        for _ in range(arguments.answers):
            group.create_task(one())
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return outcomes


async def quiet(port: int, seconds: float) -> Waits:
    waits = Waits()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await watch(port, waits)
    return waits


def left_in_flight(gateway: GatewayProcess) -> float:
    """What is not given back within some seconds; a client that leaves is noticed a moment later."""
    deadline_s = time.monotonic() + 10
    while left := gateway.metric("autoglm_replica_in_flight_requests"):
        if time.monotonic() > deadline_s:
            break
    return left


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--readers", type=int, default=8, help="at once")


def run(arguments: argparse.Namespace) -> bool:
    with (
        _engine() as engine,
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), [f"http://127.0.0.1:{engine}"]) as gateway,
    ):
        return _measure(gateway, arguments)


def _measure(gateway: GatewayProcess, arguments: argparse.Namespace) -> bool:
    before, under = asyncio.run(quiet(gateway.port, 3.0)), Waits()
    outcomes = uvloop.run(load(gateway.port, arguments, under))
    in_flight = left_in_flight(gateway)
    failed = {kind: count for kind, count in outcomes.items() if not kind.endswith("ok")}
    print(hardware_and_load(), before.line("alone"), under.line("under load"), sep="\n")
    print(f"{dict(outcomes)}; in flight at the end {in_flight:g}")
    longest_s = max(*under.chat_s, *under.health_s) - max(under.timer_s)
    print(f"the longest wait, less the longest of a timer here: {longest_s * 1e3:.1f} ms")
    return not failed and not in_flight and longest_s < _LONGEST_S


if __name__ == "__main__":
    uvloop.run(_serve())
