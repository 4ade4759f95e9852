"""Blows to a running service under phone agents, and what the agents see of each.

A service of two replicas is started, agents ask without a pause, and one blow follows the other: a replica or
its engine core is killed or told to end, everything is restarted, the settings change, the control plane is
replaced or killed. After each the service is waited for until it is whole. No step may fail; the longest time
that an agent saw nothing happen is told. Results are written after each blow, so that a broken-off run keeps
what it has; everything is ended at the end, and what had to be killed for that is a fault too.

    python -m benchmarks.gpu.faults --settings FILE.toml --model NAME --out FOLDER

Without a GPU it runs against the embedded engine: --settings benchmarks/gpu/faults_cpu.toml
--reloaded benchmarks/gpu/faults_cpu_reloaded.toml --model m --sessions 4 --system-tokens 200 --task-steps 4
"""

import argparse
import asyncio
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.stand import percentile
from benchmarks.gpu.agents import Agents, Load, Step
from benchmarks.gpu.served import Fields, Served, core_of, strike
from benchmarks.gpu.starts import start_of
from benchmarks.machine import hardware_and_load

START_S = 600.0
"""A first start on a bare machine compiles for minutes."""
CONTROL_S = 60.0
_KNOWN = (RuntimeError, TimeoutError, OSError, psutil.Error, subprocess.TimeoutExpired)
"""How a blow may miss; anything else is a mistake of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a blow may touch, and how."""

    served: Served
    calm_s: float
    reloaded: str | None
    """The settings that a reload of the engine goes over to."""
    turn: int
    """Which blow this is: victims take turns."""

    async def victim(self) -> Fields:
        replicas = sorted((await self.served.replicas()).items())
        return replicas[self.turn % len(replicas)][1]


class CannotStrike(Exception):
    """There is nothing here that this blow could hit."""


async def _calm(place: Place) -> None:
    await asyncio.sleep(place.calm_s)


def _replica(number: signal.Signals) -> Callable[[Place], Awaitable[None]]:
    async def blow(place: Place) -> None:
        victim = await place.victim()
        strike(victim["pid"], number)
        await place.served.until(lambda replicas: replicas[victim["id"]]["pid"] != victim["pid"], CONTROL_S)

    return blow


def _core(number: signal.Signals) -> Callable[[Place], Awaitable[None]]:
    async def blow(place: Place) -> None:
        victim = await place.victim()
        core = core_of(victim["pid"])
        if core is None:
            raise CannotStrike("the engine is one process")
        strike(core, number)
        await place.served.until(lambda replicas: replicas[victim["id"]]["pid"] != victim["pid"], CONTROL_S)

    return blow


async def _restart(place: Place) -> None:
    status, said = await place.served.run("restart")
    if status:
        raise RuntimeError(f"autoglm restart ended with status {status}: {said[-500:]}")


async def _reload_gateway(place: Place) -> None:
    place.served.configure(f"keep_alive_s = {60 + place.turn}\n")
    await _reload(place, CONTROL_S)


async def _reload_engine(place: Place) -> None:
    if place.reloaded is None:
        raise CannotStrike("no other settings were given")
    place.served.settings = place.reloaded
    place.served.configure()
    await _reload(place, START_S)


async def _reload(place: Place, patience_s: float) -> None:
    seen = len(place.served.said())
    place.served.plane.send_signal(signal.SIGHUP)
    good, bad = "the settings are in force", "the settings were not taken"
    await place.served.until_told(good, bad, "nothing has changed", since=seen, patience_s=patience_s)
    if good not in place.served.said()[seen:]:
        raise RuntimeError(place.served.said()[seen:][-500:])


async def _takeover(place: Place) -> None:
    before = place.served.plane
    place.served.start("--takeover")
    await asyncio.to_thread(before.wait, CONTROL_S)
    if not await place.served.undertaken(CONTROL_S):  # going over ends with new workers
        raise RuntimeError(f"it did not go over to the new version: {place.served.said()[-500:]}")


async def _adopt(place: Place) -> None:
    before = await place.served.replicas()
    place.served.plane.kill()
    place.served.plane.wait()
    await asyncio.sleep(place.calm_s / 3)  # the gateway serves on, and nobody is in control
    place.served.start()
    after = await place.served.until(_whole, CONTROL_S)
    if {name: each["pid"] for name, each in after.items()} != {n: each["pid"] for n, each in before.items()}:
        raise RuntimeError("it did not go on with the replicas that ran")


BLOWS: dict[str, tuple[str, Callable[[Place], Awaitable[None]]]] = {
    "calm": ("nothing, for comparison", _calm),
    "adopt": ("kill -9 of the control plane, then `autoglm serve` again", _adopt),
    "takeover": ("`autoglm serve --takeover`", _takeover),
    "reload-gateway": ("SIGHUP, a limit of the gateway has changed", _reload_gateway),
    "kill-replica": ("kill -9 of a replica", _replica(signal.SIGKILL)),
    "term-replica": ("SIGTERM to a replica", _replica(signal.SIGTERM)),
    "kill-core": ("kill -9 of a replica's engine core", _core(signal.SIGKILL)),
    "term-core": ("SIGTERM to a replica's engine core", _core(signal.SIGTERM)),
    "restart": ("`autoglm restart` of both replicas", _restart),
    "reload-engine": ("SIGHUP, the engine's settings have changed", _reload_engine),
}


def _whole(replicas: dict[str, Fields]) -> bool:
    return all(each["state"] == "ready" for each in replicas.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """When one blow fell, and when the service was whole again."""

    name: str
    begun_s: float
    over_s: float
    problem: str = ""


def told(struck: Struck, steps: list[Step], until_s: float = math.inf) -> Fields:
    """What the agents saw of it: of every step that ended between this blow and the next, at `until_s`."""
    hit = [step for step in steps if struck.begun_s <= step.ended_s < until_s]
    done = [step for step in hit if not step.trouble and step.ended_s < struck.over_s]
    failed = [step.trouble for step in hit if step.trouble]
    return {
        "blow": struck.name,
        "what": BLOWS[struck.name][0],
        "problem": struck.problem,
        "lasted_s": round(struck.over_s - struck.begun_s, 1),
        "steps": len(hit),
        "failed": len(failed),
        "failures": sorted(set(failed))[:5],
        "inexact": sum(step.inexact for step in hit),
        "steps_per_s": round(len(done) / max(0.1, struck.over_s - struck.begun_s), 2),
        "first_s": _spread([step.first_s for step in hit if step.streamed]),
        "gap_s": _spread([step.gap_s for step in hit if step.streamed]),
        "longest_pause_s": round(max((step.pause_s for step in hit), default=0.0), 2),
    }


def all_told(struck: list[Struck], steps: list[Step]) -> list[Fields]:
    ends = [*(each.begun_s for each in struck[1:]), math.inf]
    return [told(each, steps, until_s) for each, until_s in zip(struck, ends, strict=False)]


def _spread(values: list[float]) -> dict[str, float]:
    longest = max(values, default=0.0)
    named = {"p50": percentile(values, 50), "p95": percentile(values, 95), "longest": longest}
    return {name: round(value, 3) for name, value in named.items()}


@dataclass(slots=True, kw_only=True)
class Run:
    """One service, its agents, and what was found so far."""

    arguments: argparse.Namespace
    served: Served
    agents: Agents
    reloaded: str | None
    struck: list[Struck] = field(default_factory=list)
    starts: list[Fields] = field(default_factory=list)
    started: set[int] = field(default_factory=set)
    """The pids that these are of."""
    left: list[str] = field(default_factory=list)
    problem: str = ""

    async def all(self) -> None:
        """Start, load, blows, end. Raises TimeoutError once the time for everything is up."""
        until_s = time.monotonic() + self.arguments.seconds
        self.served.configure()
        self.served.start()
        try:
            async with asyncio.timeout(self.arguments.seconds), asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_starts())
                port = await self.served.located(self.arguments.start_s)
                replicas = await self.served.until(_whole, self.arguments.start_s)
                print(f"{len(replicas)} replicas are ready", flush=True)
                asking = group.create_task(self.agents.run(port))
                await self.agents.flowing.wait()
                await asyncio.sleep(self.arguments.settle_s)
                await self._blows(until_s)
                await self._note_starts()  # the last blow may have ended since the last look
                asking.cancel()
                watching.cancel()
        finally:
            self.left = await self.served.end()
            self.write()

    async def _blows(self, until_s: float) -> None:
        for turn, name in enumerate(self.arguments.blows.split(",")):
            if time.monotonic() + self.arguments.least_s > until_s:
                print(f"no time is left for {name}", flush=True)
                return
            calm_s = self.arguments.calm_s
            place = Place(served=self.served, calm_s=calm_s, reloaded=self.reloaded, turn=turn)
            await self._strike(name, place)

    async def _strike(self, name: str, place: Place) -> None:
        """One blow, and the time until the service is whole and has calmed down."""
        begun_s, problem = time.perf_counter(), "the time was up"
        try:
            await BLOWS[name][1](place)
            await self.served.until(_whole, self.arguments.start_s)
            problem = ""
        except CannotStrike as why:
            problem = f"left out: {why}"
        except _KNOWN as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            over_s = time.perf_counter()
            self.struck.append(Struck(name=name, begun_s=begun_s, over_s=over_s, problem=problem))
        await asyncio.sleep(self.arguments.after_s)
        print(json.dumps(told(self.struck[-1], self.agents.steps)), flush=True)
        self.write()

    async def _watch_starts(self) -> None:
        """Writes down each start of a replica when it is over, from its log, which later starts push away."""
        while True:
            await self._note_starts()
            await asyncio.sleep(0.5)

    async def _note_starts(self) -> None:
        for name, replica in (await self.served.replicas()).items():
            pid = replica["pid"]
            if replica["state"] == "ready" and pid not in self.started:
                self.started.add(pid)
                with suppress(OSError, psutil.Error):
                    self.starts.append(self._start(name, replica))

    def _start(self, name: str, replica: Fields) -> Fields:
        begun = datetime.fromtimestamp(psutil.Process(replica["pid"]).create_time())
        log = self.served.state_dir / "logs" / f"{name}.log"
        with log.open(errors="replace") as lines:
            found = start_of(lines, begun)
        took_s = (datetime.now() - begun).total_seconds()
        return {"replica": name, "after_blows": len(self.struck), "ready_s": round(took_s, 1), **found}

    def write(self) -> None:
        steps = self.agents.steps
        result: dict[str, Any] = {
            "machine": hardware_and_load(),
            "gpus": gpus(),
            "settings": self.served.settings,
            "load": asdict(self.agents.load),
            "steps": len(steps),
            "failed": sum(bool(step.trouble) for step in steps),
            "longest_pause_s": round(max((step.pause_s for step in steps), default=0.0), 2),
            "blows": all_told(self.struck, steps),
            "starts": self.starts,
            "problem": self.problem,
            "had_to_be_killed": self.left,
        }
        (self.served.folder / "faults.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
        origin = self.struck[0].begun_s if self.struck else 0.0
        lines = (json.dumps(_since(step, origin)) + "\n" for step in steps)
        (self.served.folder / "steps.jsonl").write_text("".join(lines))


def _since(step: Step, origin_s: float) -> Fields:
    return {**asdict(step), "begun_s": step.begun_s - origin_s, "ended_s": step.ended_s - origin_s}


def gpus() -> list[str]:
    """The GPUs here with what is taken of their memory; nothing where there are none."""
    query = ("nvidia-smi", "--query-gpu=name,memory.used", "--format=csv,noheader,nounits")
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def line(found: Fields) -> str:
    first, gap = found["first_s"], found["gap_s"]
    return (
        f"{found['blow']:<16}{found['lasted_s']:>8.1f}{found['steps']:>7}{found['failed']:>8}"
        f"{found['steps_per_s']:>9.2f}{first['p50']:>9.2f}{first['longest']:>9.2f}{gap['longest']:>9.2f}"
        f"  {found['problem'][:100]}{'; '.join(found['failures'])[:200]}"
    )


async def until_told_to_stop(run: Run) -> None:
    """SIGTERM ends everything, as the end does."""
    task = asyncio.create_task(run.all())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        run.problem = "told to stop"
    except TimeoutError:
        run.problem = "the time was up"
    except ExceptionGroup as errors:
        run.problem = "; ".join(map(repr, errors.exceptions))
    run.write()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", required=True, help="the service's config file")
    parser.add_argument("--reloaded", help="another, which a reload of the engine goes over to")
    parser.add_argument("--model", required=True, help="the name to ask for")
    parser.add_argument("--out", required=True, help="a folder for state, logs and results")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--blows", default=",".join(BLOWS), help="in this order; may repeat")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--system-tokens", type=int, default=1500)
    parser.add_argument("--task-steps", type=int, default=20, help="then an agent forgets what was")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for everything")
    parser.add_argument("--least-s", type=float, default=0.0, help="a blow is not begun with less left")
    parser.add_argument("--start-s", type=float, default=START_S, help="for the replicas to get ready")
    parser.add_argument("--settle-s", type=float, default=5.0, help="of steady load before the first blow")
    parser.add_argument("--calm-s", type=float, default=15.0)
    parser.add_argument("--after-s", type=float, default=3.0, help="between two blows")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    served = Served(Path(args.out), Path(args.settings).read_text(), args.port)
    load = Load(
        sessions=args.sessions,
        output_tokens=args.output_tokens,
        system_tokens=args.system_tokens,
        task_steps=args.task_steps,
        seed=args.seed,
    )
    agents = Agents(args.model, load)
    reloaded = Path(args.reloaded).read_text() if args.reloaded else None
    run = Run(arguments=args, served=served, agents=agents, reloaded=reloaded)
    asyncio.run(until_told_to_stop(run))
    found = all_told(run.struck, run.agents.steps)
    print(f"{'blow':<16}{'lasted s':>8}{'steps':>7}{'failed':>8}{'steps/s':>9}", end="")
    print(f"{'first p50':>9}{'longest':>9}{'gap':>9}")
    print(*map(line, found), sep="\n")
    print(f"had to be killed: {run.left or 'nothing'}; GPUs: {gpus() or 'none'}; {run.problem}")
    failed = any(step.trouble for step in run.agents.steps)
    missed = any(each["problem"] and not each["problem"].startswith("left out") for each in found)
    sys.exit(bool(failed or missed or run.left or run.problem))


if __name__ == "__main__":
    main()
