"""What the gateway costs: the same load direct to an engine stand-in and through one gateway worker.

    python -m benchmarks.gateway [--json out.json]

The stand-in answers at once, so the throughput ratio is the worst there can be: a real engine takes a
thousand times longer than the gateway. The numbers that carry over to a real service are the CPU seconds of
the worker, per 1,000 requests and per 100,000 chunks, and the time added to the first chunk.

The worker has the last CPU for itself; the stand-in and the load generator share the others. Both are Python
on uvloop: the figures for 64 connections are bounded by them where they are slower than the worker.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import psutil
import uvloop

from benchmarks.machine import hardware, hardware_and_load
from tests.fakes.pictures import png
from tests.gateway.gateway_process import running_gateway

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


def _framed(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(delta: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    base = '"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1'
    return _framed(f'data: {{{base},"model":"demo","choices":[{choice}]}}\n\n'.encode())


_PIECE = _event('{"content":" token"}')
_FINISH = _event("{}", '"stop"') + _framed(b"data: [DONE]\n\n") + _LAST_CHUNK
_REPLY = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "model": "demo",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "x" * 60}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 16, "total_tokens": 316},
    }
).encode()
_WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_REPLY) + _REPLY
)


# --- the engine stand-in


class StandIn(asyncio.Protocol):
    """Answers with `max_tokens` pieces, `seed` microseconds apart; parses no more than it must."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n") + 4
        length = re.search(rb"(?i)content-length: *(\d+)", self._buffer[: max(head_end, 0)])
        if head_end < 4 or length is None or len(self._buffer) < head_end + int(length[1]):
            return
        body = bytes(self._buffer[-300:])
        self._buffer.clear()
        asked = re.search(rb'"stream": true, "max_tokens": (\d+), "seed": (\d+)', body)
        if asked is None:
            self._transport.write(_WHOLE)
        elif asked[2] == b"0":
            self._transport.write(_HEAD + _PIECE)
            for _ in range(int(asked[1]) - 1):
                self._transport.write(_PIECE)
            self._transport.write(_FINISH)
        else:
            self._transport.write(_HEAD)
            self._pace(int(asked[1]), int(asked[2]) / 1e6)

    def _pace(self, left: int, gap_s: float) -> None:
        if left:
            self._transport.write(_PIECE)
            asyncio.get_running_loop().call_later(gap_s, self._pace, left - 1, gap_s)
        else:
            self._transport.write(_FINISH)


async def _serve_stand_in() -> None:
    server = await asyncio.get_running_loop().create_server(StandIn, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def stand_in() -> Iterator[int]:
    """The port of a stand-in that runs until the block ends."""
    argv = [sys.executable, "-m", "benchmarks.gateway", "--stand-in"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


# --- the load


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many requests, over so many connections that each wait for their answer."""

    name: str
    connections: int
    requests: int
    chunks: int = 0
    gap_us: int = 0
    image_bytes: int = 0

    def request(self) -> bytes:
        content: object = "Tap the search bar and look for the nearest station. " * 20
        if self.image_bytes:
            # A real header, then what a screenshot's pixels look like to a parser: base64.
            noise = base64.b64encode(os.urandom(self.image_bytes * 3 // 4)).decode().rstrip("=")
            url = png(1080, 2400)[:62] + noise
            url += "A" * (-len(url.partition(",")[2]) % 4)
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": content}]
        fields: dict[str, object] = {"model": "demo", "messages": [{"role": "user", "content": content}]}
        if self.chunks:
            fields |= {"stream": True, "max_tokens": self.chunks, "seed": self.gap_us}
        body = json.dumps(fields).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Asker(asyncio.Protocol):
    """One connection of the load generator."""

    def __init__(self, load: Load, request: bytes, run: "Run", done: asyncio.Future[None]) -> None:
        self._load = load
        self._request = request
        self._run = run
        self._done = done
        self._tail = b""
        self._left_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        if self._run.left <= 0:
            if not self._done.done():
                self._done.set_result(None)
            return
        self._run.left -= 1
        self._tail = b""
        self._first = True
        self._begun_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._load.chunks:
            if self._first and b"data: " in data:
                self._first = False
                self._run.first_s.append(time.perf_counter() - self._begun_s)
            self._tail = (self._tail + data)[-30:]
            complete = self._tail.endswith(b"data: [DONE]\n\n\r\n" + _LAST_CHUNK)
        else:
            if self._first:
                self._first = False
                assert data.startswith(b"HTTP/1.1 200"), data[:500]
                length = re.search(rb"content-length: (\d+)", data)
                assert length is not None
                self._left_bytes = data.index(b"\r\n\r\n") + 4 + int(length[1])
            self._left_bytes -= len(data)
            complete = self._left_bytes == 0
        if complete:
            self._run.whole_s.append(time.perf_counter() - self._begun_s)
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"the connection was lost: {exc}"))


class Run:
    """One load on one address."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.left = load.requests
        self.whole_s: list[float] = []
        self.first_s: list[float] = []
        self.wall_s = 0.0

    async def go(self, port: int) -> "Run":
        loop = asyncio.get_running_loop()
        request = self.load.request()
        askers, waits = [], []
        for _ in range(self.load.connections):
            done = loop.create_future()

            def make(done: "asyncio.Future[None]" = done) -> Asker:
                return Asker(self.load, request, self, done)

            _, asker = await loop.create_connection(make, "127.0.0.1", port)
            askers.append(asker)
            waits.append(done)
        begun_s = time.perf_counter()
        for asker in askers:
            asker.ask()
        await asyncio.gather(*waits)
        self.wall_s = time.perf_counter() - begun_s
        for asker in askers:
            asker._transport.close()
        return self


# --- the figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One load, direct and through the gateway."""

    load: str
    direct_rps: float
    rps: float
    direct_p50_ms: float
    p50_ms: float
    direct_p99_ms: float
    p99_ms: float
    added_to_first_chunk_ms: float | None
    """Median, through less direct; streams only."""
    cpu_s_per_1000_requests: float
    cpu_s_per_100k_chunks: float | None
    foreign_cores: float
    """CPUs that other programs kept busy meanwhile: above 0.3, all figures are too high."""


LOADS = (
    Load(name="plain, 1 connection", connections=1, requests=4_000),
    Load(name="plain, 64 connections", connections=64, requests=30_000),
    Load(name="stream of 3, 1 connection", connections=1, requests=400, chunks=3, gap_us=1000),
    Load(name="paced 10 ms, 64 streams", connections=64, requests=64 * 10, chunks=50, gap_us=10_000),
    Load(name="burst, 32 streams", connections=32, requests=3_000, chunks=100),
    Load(name="500 KB picture, 8 connections", connections=8, requests=1_000, image_bytes=500_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """What is measured."""

    direct_port: int
    gateway_port: int
    worker: psutil.Process


def measure(load: Load, rig: Rig) -> Figures:
    worker = rig.worker
    warm = Load(**{**asdict(load), "requests": max(load.requests // 20, load.connections)})
    for address in (rig.direct_port, rig.gateway_port):
        uvloop.run(Run(warm).go(address))
    direct = uvloop.run(Run(load).go(rig.direct_port))
    before_s, foreign_s = _cpu_s(worker), _foreign_cpu_s(worker)
    through = uvloop.run(Run(load).go(rig.gateway_port))
    cpu_s = _cpu_s(worker) - before_s
    foreign_cores = (_foreign_cpu_s(worker) - foreign_s) / through.wall_s
    added_s = statistics.median(through.first_s) - statistics.median(direct.first_s) if load.chunks else None
    return Figures(
        load=load.name,
        direct_rps=load.requests / direct.wall_s,
        rps=load.requests / through.wall_s,
        direct_p50_ms=_percentile_ms(direct.whole_s, 50),
        p50_ms=_percentile_ms(through.whole_s, 50),
        direct_p99_ms=_percentile_ms(direct.whole_s, 99),
        p99_ms=_percentile_ms(through.whole_s, 99),
        added_to_first_chunk_ms=None if added_s is None else added_s * 1e3,
        cpu_s_per_1000_requests=cpu_s / load.requests * 1e3,
        cpu_s_per_100k_chunks=cpu_s / load.requests / load.chunks * 1e5 if load.chunks else None,
        foreign_cores=max(0.0, foreign_cores),
    )


def _cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def _foreign_cpu_s(worker: psutil.Process) -> float:
    """What this machine has computed since it started, less what our own processes have."""
    ours = [worker, psutil.Process(), *psutil.Process().children()]
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.softirq) - sum(map(_cpu_s, set(ours)))


def _percentile_ms(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] * 1e3


def _table(rows: list[Figures]) -> Iterator[str]:
    """Direct → through the gateway."""
    names = ["load", "rps", "p50 ms", "p99 ms", "first chunk + ms", "CPU s / 1,000 requests"]
    names += ["CPU s / 100k chunks", "foreign cores"]
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"
    for row in rows:
        cells = (
            row.load,
            f"{row.direct_rps:,.0f} → {row.rps:,.0f}",
            f"{row.direct_p50_ms:.2f} → {row.p50_ms:.2f}",
            f"{row.direct_p99_ms:.2f} → {row.p99_ms:.2f}",
            _or_blank(row.added_to_first_chunk_ms),
            f"{row.cpu_s_per_1000_requests:.3f}",
            _or_blank(row.cpu_s_per_100k_chunks),
            f"{row.foreign_cores:.1f}",
        )
        yield f"| {' | '.join(cells)} |"


def _or_blank(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


@contextmanager
def running_rig() -> Iterator[Rig]:
    """A stand-in and one gateway worker before it, which has the last CPU; everything else has the others."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[:-1] or cpus)
    with (
        stand_in() as direct_port,
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), [f"http://127.0.0.1:{direct_port}"]) as gateway,
    ):
        worker = psutil.Process(gateway.process.pid)
        worker.cpu_affinity(cpus[-1:])
        yield Rig(direct_port=direct_port, gateway_port=gateway.port, worker=worker)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    if arguments.stand_in:
        uvloop.run(_serve_stand_in())
        return
    with running_rig() as tested:
        idle_mb = tested.worker.memory_info().rss / 1e6
        rows = [measure(load, tested) for load in LOADS]
        used_mb = tested.worker.memory_info().rss / 1e6
    print(hardware_and_load())
    print(f"worker RSS: {idle_mb:.0f} MB idle, {used_mb:.0f} MB after the loads")
    print(*_table(rows), sep="\n")
    if arguments.json:
        report = {"hardware": hardware(), "rss_idle_mb": idle_mb, "rss_after_mb": used_mb}
        arguments.json.write_text(json.dumps(report | {"figures": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
