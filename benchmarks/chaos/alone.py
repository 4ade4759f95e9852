"""One replica and nobody beside it: paused for a while, or ended and back later.

So many streams are under way when it is struck, of a fault-switch engine at an address that others keep
(`external`) or of an embedded replica of ours (`own`). Nobody else can take them, so they wait: for the pause
to end, or for the replica to come back, and go on then. None may be lost, and no text may be wrong.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.chaos.client import Answer, ask, chat
from benchmarks.chaos.stand import Stand, percentile, stand
from benchmarks.machine import hardware_and_load
from tests.fakes.engine_process import EngineProcess, running_engine

PIECES = 100
_PACE_S = 0.05
_STRUCK_AFTER = 5
"""Pieces of its answer that each stream has by then."""

Blow = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one blow did to the streams under way."""

    name: str
    streams: int
    lost: int
    wrong: tuple[str, ...] = field(default=())
    pause_p50_s: float = 0.0
    pause_most_s: float = 0.0

    def line(self) -> str:
        pauses = f"longest pause p50 / most {self.pause_p50_s:.1f} / {self.pause_most_s:.1f} s"
        return f"{self.name}: {self.streams - self.lost} of {self.streams} whole; {pauses}"


async def pause(pid: int, seconds: float) -> None:
    """It stands still, with all that it has open."""
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


async def killed(pid: int, seconds: float) -> None:
    """It is gone, and its supervisor starts another."""
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(seconds)


async def struck(name: str, port: int, streams: int, blow: Blow, seconds: float, text: str | None) -> Trial:
    """Begin the streams, strike when each has begun, and see how they end. `text` is what each must say."""
    begun: set[int] = set()
    all_begun = asyncio.Event()

    def watch(number: int) -> Callable[[Answer], None]:
        def on_piece(answer: Answer) -> None:
            if answer.body.count(b"data: ") >= _STRUCK_AFTER:
                begun.add(number)
                if len(begun) == streams:
                    all_begun.set()

        return on_piece

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                ask(port, chat(f"question {number}", max_tokens=PIECES), on_piece=watch(number))
            )
            for number in range(streams)
        ]
        await asyncio.wait((asyncio.ensure_future(all_begun.wait()), *tasks), return_when="FIRST_COMPLETED")
        await blow(seconds)
    answers = [task.result() for task in tasks]
    bad = [found for answer in answers for found in complaints(answer, text)]
    pauses = [answer.longest_pause_s for answer in answers]
    return Trial(
        name=f"{name} for {seconds:g} s",
        streams=streams,
        lost=sum(bool(complaints(answer, text)) for answer in answers),
        wrong=tuple(sorted(set(bad))),
        pause_p50_s=percentile(pauses, 50),
        pause_most_s=max(pauses),
    )


def complaints(answer: Answer, text: str | None) -> list[str]:
    """What is wrong with an answer that should be whole."""
    if answer.lost or answer.error or answer.status != 200:
        return [answer.lost or answer.error or f"status {answer.status}"]
    if text is not None and answer.text != text:
        return ["another text than it should be"]
    return answer.wrong()


class Address:
    """A fault-switch engine that ends and comes back at the same port."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self.engine = self._begin(0)

    def _begin(self, port: int) -> EngineProcess:
        flags = ("--port", str(port), "--chunks", str(PIECES), "--delay-s", str(_PACE_S))
        return self._held.enter_context(running_engine(*flags, "--owned-by", "vllm"))

    async def restart(self, seconds: float) -> None:
        """It is away for so long."""
        port = self.engine.port
        await asyncio.to_thread(self.engine.kill)
        await asyncio.sleep(seconds)
        self.engine = await asyncio.to_thread(self._begin, port)

    async def pause(self, seconds: float) -> None:
        await pause(self.engine.pid, seconds)

    def close(self) -> None:
        self._held.close()


@asynccontextmanager
async def external() -> AsyncIterator[tuple[Stand, Address]]:
    """The service in front of one address."""
    address = Address()
    try:
        with stand("--engine", "external", "--upstream", address.engine.url) as place:
            await place.ready()
            yield place, address
    finally:
        address.close()


async def external_trials(
    streams: int, pauses_s: list[float], restarts_s: list[float]
) -> AsyncIterator[Trial]:
    text = "".join(f"tok{number} " for number in range(PIECES))
    async with external() as (place, address):
        for seconds in pauses_s:
            yield await struck("external, paused", place.port, streams, address.pause, seconds, text)
            await place.ready()
        for seconds in restarts_s:
            yield await struck("external, away", place.port, streams, address.restart, seconds, text)
            await place.ready()


async def own_trials(streams: int, pauses_s: list[float], kills: int) -> AsyncIterator[Trial]:
    with stand("--replicas", "1") as place:
        for seconds in pauses_s:
            pid = (await place.ready())[0]["pid"]
            yield await struck("own, paused", place.port, streams, partial(pause, pid), seconds, None)
        for number in range(kills):
            pid = (await place.ready())[0]["pid"]
            name = f"own, killed ({number + 1})"
            yield await struck(name, place.port, streams, partial(killed, pid), 0.0, None)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--own-streams", type=int, default=16, help="an embedded replica answers few at once")
    parser.add_argument("--pauses-s", type=float, nargs="*", default=[1.0, 6.0, 20.0, 60.0])
    parser.add_argument("--restarts-s", type=float, nargs="*", default=[0.3, 3.0, 10.0, 30.0])
    parser.add_argument("--own-pauses-s", type=float, nargs="*", default=[1.0, 6.0])
    parser.add_argument("--own-kills", type=int, default=2)


async def measured(arguments: argparse.Namespace) -> list[Trial]:
    trials = []
    for each in (
        external_trials(arguments.streams, arguments.pauses_s, arguments.restarts_s),
        own_trials(arguments.own_streams, arguments.own_pauses_s, arguments.own_kills),
    ):
        async for trial in each:
            sys.stderr.write(trial.line() + "\n")
            trials.append(trial)
    return trials


def run(arguments: argparse.Namespace) -> bool:
    started_s = time.monotonic()
    trials = asyncio.run(measured(arguments))
    sys.stdout.write(f"{hardware_and_load()}; {time.monotonic() - started_s:.0f} s\n")
    for trial in trials:
        sys.stdout.write("\n".join((trial.line(), *(f"  {each}" for each in trial.wrong))) + "\n")
    return not any(trial.lost for trial in trials)
