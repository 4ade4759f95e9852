"""Ten times the load that can be served: what is still served, how fast, and what it costs in memory.

The engines are stand-ins that take their time without using the CPU, with a capacity that the gateway knows,
so that the gateway is what is measured. First the load that can just be served, then ten times as much, as
arrivals that wait for nobody. Each request carries a picture.
"""

import argparse
import asyncio
import base64
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.chaos.client import Fields, ask, chat
from benchmarks.chaos.stand import percentile
from benchmarks.machine import hardware_and_load
from tests.fakes.engine_process import running_engine
from tests.fakes.pictures import png
from tests.gateway.gateway_process import GatewayProcess, fleet_of, running_gateway

_REPLICAS = 2
_SLOTS = 8
_PIECES = 10
_PIECE_S = 0.05
_CLIENTS = 20
"""Different ones, for turns in the queue."""


@dataclass(slots=True, kw_only=True)
class Phase:
    """What one load brought."""

    offered_per_s: float
    outcomes: Counter[str] = field(default_factory=Counter)
    admitted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    without_hint: int = 0
    """Refusals that did not say when to come back."""
    rss_bytes: list[int] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def goodput_per_s(self) -> float:
        return self.outcomes["ok"] / self.wall_s

    def line(self, name: str) -> str:
        rss = [value / 1e6 for value in self.rss_bytes]
        return (
            f"{name}: offered {self.offered_per_s:.0f}/s, served {self.goodput_per_s:.1f}/s, "
            f"{dict(self.outcomes)}; admitted p50 / p99 {percentile(self.admitted_s, 50):.2f} / "
            f"{percentile(self.admitted_s, 99):.2f} s; refused p99 {percentile(self.refused_s, 99):.2f} s; "
            f"worker RSS {rss[0]:.0f} MB at the start, {max(rss):.0f} most, {rss[-1]:.0f} at the end"
        )


def question(number: int, picture_bytes: int) -> Fields:
    head, _, payload = png(1080, 2400).partition(",")
    padded = base64.b64encode(base64.b64decode(payload) + bytes(picture_bytes)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"{head},{padded}"}}
    fields = chat("", max_tokens=_PIECES)
    fields["messages"] = [{"role": "user", "content": [{"type": "text", "text": str(number)}, picture]}]
    return fields


async def offer(gateway: GatewayProcess, per_s: float, seconds: float, picture_bytes: int) -> Phase:
    """So many arrivals a second, whether or not they are served."""
    phase, worker = Phase(offered_per_s=per_s), psutil.Process(gateway.process.pid)
    begun_s = time.monotonic()
    fields = question(0, picture_bytes)
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(begun_s + number / per_s - time.monotonic())
            group.create_task(one(gateway.port, fields, f"client-{number % _CLIENTS}", phase))
            if number % max(1, int(per_s)) == 0:
                phase.rss_bytes.append(worker.memory_info().rss)
        phase.wall_s = time.monotonic() - begun_s
        served = phase.outcomes["ok"]
    phase.outcomes["ok after the last arrival"] = phase.outcomes["ok"] - served
    phase.outcomes["ok"] = served
    phase.rss_bytes.append(worker.memory_info().rss)
    return phase


async def one(port: int, fields: Fields, client: str, phase: Phase) -> None:
    answer = await ask(port, fields, client=client)
    took_s = time.perf_counter() - answer.arrivals_s[0]
    phase.outcomes[answer.lost or answer.error or "ok"] += 1
    if answer.status == 200:
        phase.admitted_s.append(took_s)
    elif answer.status in (429, 503):
        phase.refused_s.append(took_s)
        phase.without_hint += "retry-after" not in answer.headers


@contextmanager
def bench(max_waiting: int) -> Iterator[GatewayProcess]:
    flags = (
        "--chunks",
        str(_PIECES),
        "--delay-s",
        str(_PIECE_S),
        "--first-delay-s",
        str(_PIECE_S),
        "--uvloop",
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        running_engine(*flags) as one,
        running_engine(*flags) as two,
    ):
        fleet = fleet_of([one.url, two.url])
        limited = tuple(replace(each, capacity_requests=_SLOTS) for each in fleet.replicas)
        fleet = replace(fleet, replicas=limited)
        with running_gateway(Path(folder), fleet=fleet, max_waiting=max_waiting) as gateway:
            yield gateway


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--times", type=float, default=10.0, help="of what can be served")
    parser.add_argument("--picture-bytes", type=int, default=100_000)
    parser.add_argument("--max-waiting", type=int, default=64)


def run(arguments: argparse.Namespace) -> bool:
    capacity_per_s = _REPLICAS * _SLOTS / ((_PIECES + 1) * _PIECE_S)
    with bench(arguments.max_waiting) as gateway:
        size = arguments.picture_bytes
        peak = asyncio.run(offer(gateway, capacity_per_s * 1.1, 30, size))
        over = asyncio.run(offer(gateway, capacity_per_s * arguments.times, arguments.minutes * 60, size))
        in_flight = gateway.metric("autoglm_replica_in_flight_requests")
    print(hardware_and_load(), peak.line("peak"), over.line("overload"), sep="\n")
    share = over.goodput_per_s / peak.goodput_per_s
    settled = over.rss_bytes[len(over.rss_bytes) // 10 :]
    growth = max(settled) / settled[0] - 1
    print(f"goodput {share:.1%} of the peak; RSS grew by {growth:.1%} after the first tenth; ", end="")
    print(f"refusals without Retry-After {over.without_hint}; in flight at the end {in_flight:g}")
    print(json.dumps({"goodput_share": share, "rss_growth": growth}))
    return share >= 0.95 and growth <= 0.1 and not over.without_hint and not in_flight
