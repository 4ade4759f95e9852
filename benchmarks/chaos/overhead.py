"""What the journal and the watch for failure cost while nothing fails, as a share of the gateway's CPU.

One event at a time goes through the relay as it is, under a watch that looks ten times a second, and through
the barest relay that there can be, which hands whole events to the client and keeps, reads and times nothing.
Both take turns, pair by pair, so that what else the machine does hits them alike. The difference is set
against the CPU of a real worker per event, with streams of 10 ms a token.
"""

import argparse
import asyncio
import math
import statistics
import time
from collections.abc import Sequence

import uvloop

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.exchange.delivery import Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Relay
from autoglm_serve.gateway.exchange.stream_watch import StreamWatch
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.wire.http import Headers
from benchmarks.gateway import LOADS, measure, running_rig
from benchmarks.machine import hardware_and_load

_EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1,'
    b'"model":"demo","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
_STREAM = 100  # events: the journal of one answer
_LOOK_EVERY = 10  # events: a tenth of a second at 10 ms a token
_STREAMS = 200  # in one half of a pair
_URL = "http://replica"
_CHAT = Expected(ends_with_done=True, field="choices")


class Nowhere:
    """A client that costs nothing."""

    answering = paused = False

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None: ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None: ...

    def start(self, status: int, headers: Headers, first: bytes) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


class Bare:
    """Passes whole events on: keeps none, reads none, and does not note when they came."""

    def __init__(self, client: Nowhere) -> None:
        self._client = client

    def on_body(self, data: bytes) -> None:
        if data.endswith(b"\n\n"):
            self._client.write(data)


def bare_s() -> float:
    """CPU seconds for one event."""
    begun_s = time.process_time()
    for _ in range(_STREAMS):
        relay = Bare(Nowhere())
        for _ in range(_STREAM):
            relay.on_body(_EVENT)
    return (time.process_time() - begun_s) / (_STREAMS * _STREAM)


def whole_s(loop: asyncio.AbstractEventLoop) -> float:
    """The same with journal and watch."""
    watch = StreamWatch(stall_s=5.0)
    begun_s = time.process_time()
    for _ in range(_STREAMS):
        ending: asyncio.Future[Ending] = loop.create_future()
        relay = Relay(Delivery(Nowhere(), loop, expected=_CHAT), loop, ending)
        watch.enter(_URL, relay)
        relay.on_head(200, ((b"content-type", b"text/event-stream"),))
        for number in range(_STREAM):
            relay.on_body(_EVENT)
            if number % _LOOK_EVERY == 0:
                watch.sweep(loop.time())
        watch.leave(_URL, relay)
    return (time.process_time() - begun_s) / (_STREAMS * _STREAM)


def worker_event_s(rounds: int) -> list[float]:
    """CPU seconds of a real worker for one event of a stream with 10 ms a token, in each round."""
    paced = next(load for load in LOADS if load.name.startswith("paced"))
    with running_rig() as tested:
        found = [measure(paced, tested).cpu_s_per_100k_chunks for _ in range(rounds)]
    return [each / 1e5 for each in found if each is not None]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half of its 95 % confidence interval."""
    return statistics.fmean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5, help="of the real worker")


def run(arguments: argparse.Namespace) -> bool:
    loop = uvloop.new_event_loop()
    pairs = [(bare_s(), whole_s(loop)) for _ in range(arguments.pairs)]
    loop.close()
    added_s, added_off_s = interval([whole - bare for bare, whole in pairs])
    worker_s, worker_off_s = interval(worker_event_s(arguments.rounds))
    share = added_s / worker_s
    off = share * math.hypot(added_off_s / added_s, worker_off_s / worker_s)
    print(hardware_and_load())
    print(f"bare {interval([bare for bare, _ in pairs])[0] * 1e6:.3f} us an event, {len(pairs)} pairs")
    print(f"journal and watch add {added_s * 1e6:.3f} +- {added_off_s * 1e6:.3f} us")
    print(f"a worker in all {worker_s * 1e6:.1f} +- {worker_off_s * 1e6:.1f} us an event")
    print(f"journal and watch are {share:.2%} +- {off:.2%} of it (95 % confidence)")
    return share + off < 0.03
