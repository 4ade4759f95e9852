"""`autoglm restart` of every replica, one after the other, under load.

Streams without a pause from so many clients, first undisturbed, then while the restart lasts. No request may
fail, and the throughput of the worst seconds is set against that of the undisturbed ones.
"""

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field

from benchmarks.chaos.client import ask, chat
from benchmarks.chaos.kills import QUESTIONS
from benchmarks.chaos.stand import Stand, stand
from benchmarks.machine import hardware_and_load

_WINDOW_S = 2.0


@dataclass(slots=True, kw_only=True)
class Rolling:
    ended_s: list[float] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    over: bool = False

    def per_s(self, begin_s: float, end_s: float) -> float:
        return sum(begin_s <= at < end_s for at in self.ended_s) / (end_s - begin_s)

    def worst_per_s(self, begin_s: float, end_s: float) -> float:
        """Of all windows between the two, moved on by a quarter of a second."""
        steps = max(1, int((end_s - begin_s - _WINDOW_S) / 0.25))
        starts = [begin_s + number / 4 for number in range(steps)]
        return min(self.per_s(start, start + _WINDOW_S) for start in starts)


async def client(place: Stand, seen: Rolling, rng: random.Random, max_tokens: int) -> None:
    while not seen.over:
        question = f"{rng.choice(QUESTIONS)} {rng.randrange(10_000)}"
        answer = await ask(place.port, chat(question, max_tokens=max_tokens))
        seen.ended_s.append(time.monotonic())
        if trouble := answer.lost or answer.error or ", ".join(answer.wrong()):
            seen.bad.append(f"{trouble}: {bytes(answer.body[-300:])!r}")


async def roll(place: Stand, arguments: argparse.Namespace) -> tuple[Rolling, float, float, float]:
    """What was seen; when the load began, when the restart began and when it ended."""
    await place.ready()
    seen = Rolling()
    async with asyncio.TaskGroup() as group:
        for number in range(arguments.clients):
            rng = random.Random(f"{arguments.seed}/{number}")
            group.create_task(client(place, seen, rng, arguments.max_tokens))
        await asyncio.sleep(2)
        begin_s = time.monotonic()
        await asyncio.sleep(arguments.before_s)
        restart_s = time.monotonic()
        argv = (sys.executable, "-m", "autoglm_serve.cli.main", "restart", "--port", str(place.port))
        process = await asyncio.create_subprocess_exec(*argv)
        status = await process.wait()
        end_s = time.monotonic()
        seen.over = True
    if status:
        seen.bad.append(f"autoglm restart ended with status {status}")
    return seen, begin_s, restart_s, end_s


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--before-s", type=float, default=20.0, help="of undisturbed load")
    parser.add_argument("--max-tokens", type=int, default=200)


def run(arguments: argparse.Namespace) -> bool:
    with stand("--replicas", str(arguments.replicas)) as place:
        seen, begin_s, restart_s, end_s = asyncio.run(roll(place, arguments))
    before = seen.per_s(begin_s, restart_s)
    quiet = [seen.worst_per_s(begin_s, restart_s), seen.worst_per_s(restart_s, end_s)]
    during = seen.per_s(restart_s, end_s)
    floor = ((arguments.replicas - 1) / arguments.replicas - 0.1) * before
    print(hardware_and_load())
    print(
        f"{arguments.replicas} replicas restarted in {end_s - restart_s:.1f} s, {arguments.clients} clients"
    )
    print(f"requests {len(seen.ended_s)}, failed {len(seen.bad)}")
    print(f"served {before:.1f}/s before, {during:.1f}/s during (goal: at least {floor:.1f})")
    print(f"worst {_WINDOW_S:g} s: {quiet[0]:.1f}/s before, {quiet[1]:.1f}/s during")
    print(*seen.bad[:10], sep="\n")
    return not seen.bad and during >= floor
