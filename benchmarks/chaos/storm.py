"""Random faults against the whole service, from a schedule that a seed gives.

Half of the time in front of fault-switch engines, whose text is known to the last character, half of it with
real embedded replicas. Afterwards: one outcome for each request, nothing in flight, no process, socket or
file descriptor left.
"""

import argparse
import asyncio
import os
import random
import resource
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.chaos.client import Fields, chat
from benchmarks.chaos.crowd import Books, Crowd, Expected, counted_answer, counted_question
from benchmarks.chaos.schedule import CHANGES, EMBEDDED, SERVICE, SWITCHED, Blow, schedule
from benchmarks.chaos.stand import Stand, kill, total
from benchmarks.machine import hardware_and_load
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.process.service_process import ServiceProcess, running_service

_ENGINES = 3
_LIMIT_BYTES = 1 << 20  # of what it takes from now on: the next requests are too much


@dataclass(slots=True, kw_only=True)
class Arena:
    """The service and what is behind it, as the blows find them."""

    place: Stand
    start_again: Callable[..., ServiceProcess]
    hit: Callable[["Arena", Blow], Awaitable[None]]
    done: Counter[str] = field(default_factory=Counter)
    worker_kills_s: list[float] = field(default_factory=list)
    change: Callable[["Arena", Blow], Awaitable[None]] | None = None
    """What strikes by changing the service, where the arena has such blows."""

    async def strike(self, blow: Blow) -> None:
        self.done[blow.kind] += 1
        if blow.kind in CHANGES:
            assert self.change is not None
            await self.change(self, blow)
        elif blow.kind not in SERVICE:
            await self.hit(self, blow)
        elif blow.kind == "control plane killed":
            self.place.service.process.kill()
            await asyncio.to_thread(self.place.service.process.wait)
            await asyncio.sleep(blow.for_s)
            self.place = Stand(service=await asyncio.to_thread(self.start_again))
        elif workers := self.place.workers():
            worker = workers[blow.target % len(workers)]
            with suppress(psutil.NoSuchProcess):
                if blow.kind == "worker killed":
                    worker.kill()
                    self.worker_kills_s.append(time.monotonic())
                else:
                    await pause(worker.pid, blow.for_s)


async def pause(pid: int, for_s: float) -> None:
    with suppress(ProcessLookupError):
        kill(pid, signal.SIGSTOP)
        await asyncio.sleep(for_s)
        kill(pid, signal.SIGCONT)


# --- behind it: fault-switch engines


@dataclass(slots=True)
class Switched:
    """Engines with a fault on a switch. Each is started again on its port when it is gone."""

    held: ExitStack
    ports: Sequence[int]
    engines: list[EngineProcess] = field(default_factory=list)

    def start(self) -> None:
        self.engines = [self._engine(port) for port in self.ports]

    def _engine(self, port: int) -> EngineProcess:
        flags = ("--port", str(port), "--owned-by", "llamacpp", "--models", "demo")
        return self.held.enter_context(running_engine(*flags))

    async def hit(self, arena: Arena, blow: Blow) -> None:
        at = blow.target % len(self.engines)
        engine = self.engines[at]
        if blow.kind == "away":
            engine.kill()
            await asyncio.sleep(blow.for_s)
        elif blow.kind == "pause":
            await pause(engine.pid, blow.for_s)
        else:
            with suppress(OSError):
                await asyncio.to_thread(engine.control, fault=blow.fault, times=blow.times)
            await asyncio.sleep(blow.for_s)
            with suppress(OSError):
                if engine.process.poll() is None and not _stopped(engine.pid):
                    await asyncio.to_thread(engine.control, fault=None, times=0)
        if engine.process.poll() is not None or _stopped(engine.pid):
            engine.kill()
            self.engines[at] = self._engine(self.ports[at])


def _stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def switched_arena(*more: str) -> Iterator[Arena]:
    with ExitStack() as held, tempfile.TemporaryDirectory() as folder:
        engines = Switched(held, [_free_port() for _ in range(_ENGINES)])
        engines.start()
        flags = [flag for port in engines.ports for flag in ("--upstream", f"http://127.0.0.1:{port}")]
        flags += [
            "--engine",
            "external",
            "--stall-timeout-s",
            "1",
            "--request-timeout-s",
            "20",
            "--served-model-name",
            "demo",
        ]
        with _service(held, Path(folder), *flags, *more) as (place, again):
            yield Arena(place=place, start_again=again, hit=engines.hit)


# --- behind it: real replicas


async def hit_replica(arena: Arena, blow: Blow) -> None:
    """A replica of its own, while another can serve: with none left there is nothing to go on with."""
    try:
        ready = await arena.place.ready(2)
    except (OSError, ValueError, KeyError):  # the control plane is away, and with it the knowledge of pids
        arena.done[blow.kind] -= 1
        return
    pid = ready[blow.target % len(ready)]["pid"]
    await _end_replica(arena, blow, pid)
    known = time.monotonic() + (0 if blow.kind == "pause" else 5)
    while time.monotonic() < known:  # a blow to the last one is none to survive, so the next waits
        with suppress(OSError, ValueError, KeyError):
            if pid not in [one["pid"] for one in await arena.place.ready(1)]:
                return
        await asyncio.sleep(0.05)


async def _end_replica(arena: Arena, blow: Blow, pid: int) -> None:
    if blow.kind == "pause":
        await pause(pid, blow.for_s)
    elif blow.kind == "out of memory" and _starve(pid):
        arena.done["out of memory, by the kernel"] += 1
    elif blow.kind == "out of memory" and _allow_no_more(pid):
        arena.done["out of memory, by a limit"] += 1
    else:
        with suppress(ProcessLookupError):
            kill(pid)


def _starve(pid: int) -> bool:
    """Let the kernel's out-of-memory killer end a process; false where we may not make a control group."""
    folder = Path("/sys/fs/cgroup/memory") / f"autoglm-chaos-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(str(_LIMIT_BYTES))
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def _allow_no_more(pid: int) -> bool:
    """Let its next allocations fail, for which nobody needs rights over it but its owner's."""
    try:
        taken_bytes = psutil.Process(pid).memory_info().vms
        resource.prlimit(pid, resource.RLIMIT_AS, (taken_bytes, resource.RLIM_INFINITY))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False
    return True


@contextmanager
def embedded_arena(*more: str) -> Iterator[Arena]:
    with ExitStack() as held, tempfile.TemporaryDirectory() as folder:
        flags = ("--replicas", "3", "--no-speech", "--stall-timeout-s", "2")
        with _service(held, Path(folder), *flags, *more) as (place, again):
            yield Arena(place=place, start_again=again, hit=hit_replica)
        with suppress(OSError):
            (Path("/sys/fs/cgroup/memory") / f"autoglm-chaos-{os.getpid()}").rmdir()


@contextmanager
def _service(
    held: ExitStack, folder: Path, *flags: str
) -> Iterator[tuple[Stand, Callable[..., ServiceProcess]]]:
    flags += ("--gateway-workers", "2")
    first = held.enter_context(running_service(*flags, state_dir=folder))

    def again(*more: str) -> ServiceProcess:
        return held.enter_context(running_service(*flags, "--port", str(first.port), *more, state_dir=folder))

    yield Stand(service=first), again


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One storm."""

    books: Books
    blows: Counter[str]
    counted: dict[str, float]
    """What the service counted, by outcome."""
    complaints: list[str]

    def lines(self) -> list[str]:
        return [
            f"blows: {_told(self.blows)}",
            f"clients saw: {_told(self.books.outcomes)} (sent {self.books.sent}, cut {self.books.cut})",
            f"service counted: {_told(self.counted)}",
            *self.complaints[:20],
        ]


def _told(counts: "Counter[str] | dict[str, float]") -> str:
    return ", ".join(f"{name} {count:g}" for name, count in sorted(counts.items()))


def real_question(rng: random.Random, number: int) -> Fields:
    return chat(f"{rng.choice(('打开微信', 'Open the settings', '你是谁？'))} {number}", max_tokens=60)


def nobody_knows(fields: Fields) -> None:
    return None


Strikes = Callable[[Arena, Books], Awaitable[list[str]]]
"""Strikes an arena while the clients of these books ask; says what was wrong at once."""


def by_schedule(blows: Sequence[Blow]) -> Strikes:
    async def strike(arena: Arena, books: Books) -> list[str]:
        await _strike_all(arena, blows)
        return []

    return strike


async def storm(
    arena: Arena,
    strikes: Strikes,
    *,
    seed: int,
    clients: int,
    question: Callable[[random.Random, int], Fields],
    expected: Expected,
) -> Report:
    """Strike while clients ask, let the dust settle, and count."""
    await arena.place.ready()
    await asyncio.to_thread(arena.place.service.wait_for_workers)
    crowd = Crowd(port=arena.place.port, question=question, expected=expected)
    before, already = await _at_rest(arena.place), _requests(await arena.place.metrics())
    async with asyncio.TaskGroup() as group:
        group.create_task(crowd.run(clients, seed))
        complaints = await strikes(arena, crowd.books)
        crowd.stop()
    complaints += crowd.books.bad
    after = await _settle(arena.place, before)
    if left := await _in_flight(arena.place):
        complaints.append(f"in flight after the last answer: {left}")
    if after > before:
        complaints.append(f"open files and sockets: {before} before, {after} after")
    now = _requests(await arena.place.metrics())
    counted = {name: now[name] - already.get(name, 0) for name in now}
    unheard = crowd.books.outcomes["too_many_connections"]  # told before anybody reads a request
    uncertain = unheard + crowd.books.cut + crowd.books.left_before(arena.worker_kills_s)
    complaints += _audit(crowd.books.sent, uncertain, counted)
    return Report(books=crowd.books, blows=arena.done, counted=counted, complaints=complaints)


async def _settle(place: Stand, open_files: int) -> int:
    """Until all is as before; at most so long as idle connections are kept, and some.

    Returns the open files as they were then: the next look at a health path would be one more.
    """
    give_up_s = time.monotonic() + 20
    while await _in_flight(place) or (now := await _open_files(place)) > open_files:
        if time.monotonic() > give_up_s:
            return await _open_files(place)
        await asyncio.sleep(0.2)
    return now


def _audit(sent: int, uncertain: int, counted: dict[str, float]) -> list[str]:
    """Each request has one outcome; what a killed worker had in hand may or may not have been counted."""
    number = sum(counted.values())
    told = []
    if not sent - uncertain <= number <= sent:
        told.append(f"{sent} requests sent, {uncertain} of them cut, but {number:g} outcomes counted")
    if counted.get("internal"):
        told.append(f"{counted['internal']:g} bugs in the gateway")
    return told


async def _strike_all(arena: Arena, blows: Sequence[Blow]) -> None:
    """Each at its time, also while others last; but the service itself is hit by one at a time."""
    begun_s, one_at_a_time = time.monotonic(), asyncio.Lock()
    end_s = max((blow.at_s for blow in blows), default=0.0) + 1

    async def strike(blow: Blow) -> None:
        await asyncio.sleep(blow.at_s - (time.monotonic() - begun_s))
        async with one_at_a_time:
            if time.monotonic() - begun_s < end_s:  # those before it may have lasted
                await arena.strike(blow)

    async with asyncio.TaskGroup() as group:
        for blow in blows:
            group.create_task(strike(blow))


def _requests(metrics: dict[str, float]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for sample, value in metrics.items():
        if sample.startswith("autoglm_requests_total{"):
            outcome = sample.partition('outcome="')[2].partition('"')[0]
            counts[outcome] = counts.get(outcome, 0) + value
    return counts


async def _in_flight(place: Stand) -> float:
    metrics = await place.metrics()
    requests = total(metrics, "autoglm_replica_in_flight_requests")
    return requests or total(metrics, "autoglm_replica_in_flight_cost_tokens")


async def _at_rest(place: Stand) -> int:
    """Open files, once a worker that was still starting has all of its own."""
    before = -1
    while (now := await _open_files(place)) != before:
        before = now
        await asyncio.sleep(0.5)
    return now


async def _open_files(place: Stand) -> int:
    """Of the control plane and the gateway's workers, sockets among them."""
    count = 0
    with suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(place.service.process.pid), *place.workers()):
            count += process.num_fds()
    return count


def run_one(name: str, seed: int, duration_s: float, every_s: float, clients: int) -> Report:
    """One storm in an arena of its own; what its processes leave behind is a complaint too."""
    kind = ARENAS[name]
    blows = schedule(seed, duration_s, every_s, (*kind.blows, *SERVICE))
    with kind.arena() as arena:
        report = asyncio.run(
            storm(
                arena,
                by_schedule(blows),
                seed=seed,
                clients=clients,
                question=kind.question,
                expected=kind.expected,
            )
        )
        place = arena.place
        ours = place.service.pids()
        place.service.stop()
        left = [pid for pid in ours if lives(pid)]
    if left:
        report.complaints.append(f"processes left behind: {left}")
    return report


def lives(pid: int) -> bool:
    """Not as a zombie, which waits for a parent outside our reach: those of a killed control plane."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """An arena, what breaks in it, and what is asked there."""

    arena: Callable[..., AbstractContextManager[Arena]]
    blows: Sequence[str]
    question: Callable[[random.Random, int], Fields]
    expected: Expected


ARENAS = {
    "switched": Kind(
        arena=switched_arena, blows=SWITCHED, question=counted_question, expected=counted_answer
    ),
    "embedded": Kind(arena=embedded_arena, blows=EMBEDDED, question=real_question, expected=nobody_knows),
}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every-s", type=float, default=1.0, help="mean time between two blows")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--arena", choices=ARENAS, help="only this one")


def run(arguments: argparse.Namespace) -> bool:
    names = [arguments.arena] if arguments.arena else list(ARENAS)
    print(hardware_and_load(), f"seed {arguments.seed}", sep="\n")
    sound = True
    for name in names:
        duration_s = arguments.minutes * 60 / len(names)
        report = run_one(name, arguments.seed, duration_s, arguments.every_s, arguments.clients)
        print(f"--- {name}", *report.lines(), sep="\n")
        sound &= not report.complaints
    if not sound:
        print(f"FAILED; again with --seed {arguments.seed}")
    return sound
