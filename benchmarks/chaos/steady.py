"""Many streams at once, and a kill -9 of a replica every few seconds, for minutes.

A replica is killed only while another is ready. No request may fail.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.chaos.client import ask, chat
from benchmarks.chaos.kills import QUESTIONS
from benchmarks.chaos.stand import Stand, kill, percentile, stand, total
from benchmarks.machine import hardware_and_load


@dataclass(slots=True, kw_only=True)
class Steady:
    outcomes: Counter[str] = field(default_factory=Counter)
    first_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    kills: int = 0


async def client(place: Stand, seen: Steady, rng: random.Random, until_s: float, max_tokens: int) -> None:
    while time.monotonic() < until_s:
        fields = chat(f"{rng.choice(QUESTIONS)} {rng.randrange(10_000)}", max_tokens=max_tokens)
        answer = await ask(place.port, fields)
        trouble = answer.lost or answer.error or ", ".join(answer.wrong())
        seen.outcomes[trouble or "ok"] += 1
        if trouble:
            seen.bad.append(f"{trouble}: {bytes(answer.body[-300:])!r}")
            continue
        seen.first_s.append(answer.arrivals_s[1] - answer.arrivals_s[0])
        seen.whole_s.append(answer.arrivals_s[-1] - answer.arrivals_s[0])


async def killer(place: Stand, seen: Steady, rng: random.Random, until_s: float, every_s: float) -> None:
    while time.monotonic() + every_s < until_s:
        await asyncio.sleep(every_s)
        ready = await place.ready(2)
        kill(rng.choice(ready)["pid"])
        seen.kills += 1


async def load(place: Stand, arguments: argparse.Namespace) -> Steady:
    await place.ready()
    seen, until_s = Steady(), time.monotonic() + arguments.minutes * 60
    async with asyncio.TaskGroup() as group:
        for number in range(arguments.streams):
            rng = random.Random(f"{arguments.seed}/{number}")
            group.create_task(client(place, seen, rng, until_s, arguments.max_tokens))
        group.create_task(killer(place, seen, random.Random(arguments.seed), until_s, arguments.every_s))
    return seen


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--every-s", type=float, default=5.0, help="between two kills")
    parser.add_argument("--max-tokens", type=int, default=200)


def run(arguments: argparse.Namespace) -> bool:
    slots = str(max(1, arguments.streams // arguments.replicas))
    with stand("--replicas", str(arguments.replicas), "--max-num-seqs", slots) as place:
        seen = asyncio.run(load(place, arguments))
        metrics = asyncio.run(place.metrics())
    recovered = total(metrics, "autoglm_recoveries_total")
    print(hardware_and_load())
    print(f"{arguments.minutes:g} minutes, {arguments.streams} streams at once, {seen.kills} kills")
    print(f"requests {seen.outcomes.total()}: {dict(seen.outcomes)}")
    print(
        f"streams that went on elsewhere {recovered:g}, retries {total(metrics, 'autoglm_retries_total'):g}"
    )
    print(
        f"first event p50 / p99 {percentile(seen.first_s, 50):.2f} / {percentile(seen.first_s, 99):.2f} s, "
        f"whole answer {percentile(seen.whole_s, 50):.2f} / {percentile(seen.whole_s, 99):.2f} s"
    )
    print(*seen.bad[:10], sep="\n")
    return not seen.bad
