"""What the journal and the watch for failure cost while nothing fails, as a share of the gateway's CPU.

Timed alone: one event at a time through the relay as it is, and through one that only passes whole events on.
The difference is set against the CPU of a real worker per event, with streams of 10 ms a token.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from autoglm_serve.gateway.delivery import Delivery
from autoglm_serve.gateway.http import Headers
from autoglm_serve.gateway.relay import Ending, Relay
from benchmarks.chaos.stand import hardware
from benchmarks.gateway import LOADS, measure, stand_in
from tests.gateway.gateway_process import running_gateway

_EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1,'
    b'"model":"demo","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
_STREAM = 100  # events: the journal of one answer
_PASSES = 2000


class Nowhere:
    """A client that costs nothing."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None: ...

    def start(self, status: int, headers: Headers, first: bytes) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


class Bare(Relay):
    """Passes whole events on: keeps none, reads none, and does not note when they came."""

    def _send_events(self, events: bytes) -> None:
        self._delivery.data(events)


def event_s(loop: asyncio.AbstractEventLoop, *, bare: bool) -> float:
    """CPU seconds for one event."""
    begun_s = time.process_time()
    for _ in range(_PASSES):
        ending: asyncio.Future[Ending] = loop.create_future()
        relay = (Bare if bare else Relay)(Delivery(Nowhere(), loop), loop, ending=ending)
        relay.on_head(200, ((b"content-type", b"text/event-stream"),))
        for _ in range(_STREAM):
            relay.on_body(_EVENT)
    return (time.process_time() - begun_s) / (_PASSES * _STREAM)


def worker_event_s() -> float:
    """CPU seconds of a real worker for one event of a stream with 10 ms a token."""
    paced = next(load for load in LOADS if load.name.startswith("paced"))
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[:-1] or cpus)
    with (
        stand_in() as direct,
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), [f"http://127.0.0.1:{direct}"]) as gateway,
    ):
        worker = psutil.Process(gateway.process.pid)
        worker.cpu_affinity(cpus[-1:])
        found = measure(paced, direct, gateway.port, worker).cpu_s_per_100k_chunks
    assert found is not None
    return found / 1e5


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)


def run(arguments: argparse.Namespace) -> bool:
    loop = uvloop.new_event_loop()
    rounds = range(arguments.rounds)
    whole = min(event_s(loop, bare=False) for _ in rounds)
    bare = min(event_s(loop, bare=True) for _ in rounds)
    loop.close()
    worker = worker_event_s()
    share = (whole - bare) / worker
    print(hardware())
    print(f"relay with journal and watch {whole * 1e6:.2f} us an event, bare {bare * 1e6:.2f} us")
    print(f"a worker in all {worker * 1e6:.1f} us an event; journal and watch {share:.1%} of it")
    return share < 0.03
