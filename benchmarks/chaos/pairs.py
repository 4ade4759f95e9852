"""Two faults at one time, of all kinds there are, one pair after the other.

Besides what the storm strikes with, the service is changed meanwhile (settings, renewals, a takeover), goes
short of files, or finds its sockets deleted. Clients of every kind ask throughout. Nothing may be lost but
what a killed worker had in hand; no text wrong, no outcome uncounted, nothing left behind.
"""

import argparse
import asyncio
import itertools
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.chaos.crowd import Books
from benchmarks.chaos.schedule import CHANGES, SERVICE, Blow, schedule
from benchmarks.chaos.stand import Stand
from benchmarks.chaos.storm import ARENAS, Arena, Report, Strikes, lives, pause, storm
from benchmarks.machine import hardware_and_load

Pair = tuple[Blow, Blow]

_CUTS = frozenset({"worker killed", "worker paused", "worker short of files"})
"""A worker's end, and a connection that it has no file for, cut what it has in hand."""
_STARTS = frozenset({"control plane killed", "taken over"})
"""After these a control plane is started; one at a time is in control."""
_SPARE_FILES = 4
_CALM_S, _LONG_S = 0.3, 50.0


@dataclass(slots=True, kw_only=True)
class Settings:
    """A settings file that is changed again and again."""

    path: Path
    number: int = 0

    def write(self) -> None:
        self.number += 1
        self.path.write_text(f"max_queue = {200 + self.number % 50}\n")

    async def change(self, arena: Arena, blow: Blow) -> None:
        """Strike with a change (`schedule.CHANGES`); what is away for it is passed over."""
        service = arena.place.service
        match blow.kind:
            case "settings changed":
                self.write()
                service.process.send_signal(signal.SIGHUP)
            case "workers renewed" | "replicas renewed":
                of_workers = blow.kind.startswith("workers")
                what: dict[str, object] = {"replicas": [] if of_workers else None, "workers": of_workers}
                with suppress(OSError, ValueError):
                    await asyncio.to_thread(service.administer, "POST", "/admin/restart", what)
            case "taken over":
                await _take_over(arena)
            case "sockets deleted":
                for path in service.state_dir.glob("*.sock"):
                    path.unlink(missing_ok=True)
            case "control plane paused":
                await pause(service.process.pid, blow.for_s)
            case "control plane short of files":
                await _starved(service.process.pid, blow.for_s)
            case _:
                await _to_worker(arena, blow)


async def _take_over(arena: Arena) -> None:
    """One that comes in the middle of another change is told so, and changes nothing."""
    try:
        again = await asyncio.to_thread(arena.start_again, "--takeover")
    except AssertionError as refused:
        if "does not leave" not in str(refused):
            raise
        arena.done["taken over, refused"] += 1
    else:
        arena.place = Stand(service=again)


async def _to_worker(arena: Arena, blow: Blow) -> None:
    workers = arena.place.workers()
    if not workers:
        return
    worker = workers[blow.target % len(workers)]
    if blow.kind == "worker told to leave":
        with suppress(psutil.NoSuchProcess):
            worker.terminate()
    else:
        await _starved(worker.pid, blow.for_s)


async def _starved(pid: int, for_s: float) -> None:
    """It may open a few files more, for a while."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = psutil.Process(pid).num_fds() + _SPARE_FILES
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(few, usual[1]), usual[1]))
        await asyncio.sleep(for_s)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def pairs(seed: int, number: int, kinds: Sequence[str]) -> list[Pair]:
    """So many of all pairs of kinds, drawn without repetition while there are others."""
    rng = random.Random(seed)
    every = [
        pair
        for pair in itertools.combinations_with_replacement(dict.fromkeys(kinds), 2)
        if sum(kind in _STARTS for kind in pair) < 2
    ]
    rng.shuffle(every)
    found = []
    for at in range(number):
        one, other = every[at % len(every)]
        blows = schedule(rng.randrange(1 << 30), 2.0, 1.0, (one,))[:1]
        blows += schedule(rng.randrange(1 << 30), 2.0, 1.0, (other,))[:1]
        found.append((blows[0], blows[1]))
    return found


def in_pairs(blows: Sequence[Pair], apart_s: float = 0.3) -> Strikes:
    """Each pair at one time, the second up to `apart_s` later; the next when the service is itself again."""

    async def strike(arena: Arena, books: Books) -> list[str]:
        told = []
        for number, pair in enumerate(blows):
            cut, begun_s = books.cut, time.monotonic()
            await _strike_both(arena, pair, random.Random(number).uniform(0, apart_s))
            await _calm(arena)
            took_s = time.monotonic() - begun_s
            sys.stderr.write(f"{number}: {pair[0].kind} with {pair[1].kind}: {took_s:.1f} s\n")
            if took_s > _LONG_S:
                told.append(f"{took_s:.0f} s until calm: {pair[0].kind} with {pair[1].kind} (pair {number})")
            if books.cut > cut and not any(blow.kind in _CUTS for blow in pair):
                told.append(f"{books.cut - cut} cut by {pair[0].kind} with {pair[1].kind} (pair {number})")
        return told

    return strike


async def _strike_both(arena: Arena, pair: Pair, apart_s: float) -> None:
    async def later() -> None:
        await asyncio.sleep(apart_s)
        await arena.strike(pair[1])

    async with asyncio.TaskGroup() as group:
        group.create_task(arena.strike(pair[0]))
        group.create_task(later())


async def _calm(arena: Arena) -> None:
    """Until the control plane answers, all replicas and workers serve, and a moment longer."""
    for _ in range(600):
        with suppress(OSError, ValueError, KeyError):
            status = await asyncio.to_thread(arena.place.service.status)
            gateway = status["gateway"]
            ready = all(each["state"] in ("ready", "failed") for each in status["replicas"])
            if ready and gateway["serving"] >= gateway["workers"]:
                break
        await asyncio.sleep(0.1)
    await asyncio.sleep(_CALM_S)


def run_one(name: str, seed: int, number: int, clients: int) -> Report:
    kind = ARENAS[name]
    changes = [each for each in CHANGES if name == "embedded" or each != "replicas renewed"]
    blows = pairs(seed, number, (*kind.blows, *SERVICE, *changes))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(path=Path(folder) / "autoglm.toml")
        settings.write()
        with kind.arena("--config", str(settings.path)) as arena:
            arena.change = settings.change
            report = asyncio.run(
                storm(
                    arena,
                    in_pairs(blows),
                    seed=seed,
                    clients=clients,
                    question=kind.question,
                    expected=kind.expected,
                )
            )
            ours = arena.place.service.pids()
            arena.place.service.stop()
            left = [pid for pid in ours if lives(pid)]
    if left:
        report.complaints.append(f"processes left behind: {left}")
    return report


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=100, help="in each arena")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--arena", choices=ARENAS, help="only this one")


def run(arguments: argparse.Namespace) -> bool:
    print(hardware_and_load(), f"seed {arguments.seed}", sep="\n")
    sound = True
    for name in [arguments.arena] if arguments.arena else list(ARENAS):
        report = run_one(name, arguments.seed, arguments.pairs, arguments.clients)
        print(f"--- {name}: {arguments.pairs} pairs", *report.lines(), sep="\n", flush=True)
        sound &= not report.complaints
    return sound
