"""What the control plane counts on from every launcher: this machine's, and one behind a socket."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.control.replica.health import Health, ask
from autoglm_serve.core.plan import Deployment, Placement
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.launch.base import Exit, Launcher, RunningProcess
from autoglm_serve.launch.local import LocalLauncher
from tests.fakes.engine_process import REPOSITORY
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member
from tests.fakes.remote_launcher import RemoteLauncher

pytestmark = pytest.mark.process

HERE = Placement()


@dataclass
class Place:
    """Where a launcher starts things; `again` is how the next control plane reaches it."""

    launcher: Launcher[Any]
    again: Callable[[], Launcher[Any]]
    drop: Callable[[], Coroutine[Any, Any, None]]
    """Lose the connection for a moment, where there is one."""


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Place]:
    async def drop() -> None:
        pass

    yield Place(LocalLauncher(folder), lambda: LocalLauncher(folder), drop)


@asynccontextmanager
async def remote(folder: Path) -> AsyncIterator[Place]:
    socket = folder / "agent.sock"
    argv = [sys.executable, "-m", "tests.fakes.launch_agent", str(socket), str(folder)]
    agent = await asyncio.create_subprocess_exec(*argv, cwd=REPOSITORY)
    launcher = RemoteLauncher(socket)

    async def drop() -> None:
        before = launcher.lost
        await launcher.ask("drop")
        while launcher.lost == before:  # noqa: ASYNC110
            await asyncio.sleep(0)

    try:
        yield Place(launcher, lambda: RemoteLauncher(socket), drop)
    finally:
        await launcher.end(await launcher.left())
        agent.kill()
        await agent.wait()


KINDS = {"local": local, "remote": remote}
Story = Callable[[Place], Coroutine[Any, Any, None]]


@pytest.fixture(params=KINDS)
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    async def told(story: Story) -> None:
        async with asyncio.timeout(30), KINDS[request.param](tmp_path) as place:
            await story(place)

    return lambda story: asyncio.run(told(story))


def says(*words: str, then: str = "") -> Callable[[Listen], Command]:
    text = "; ".join([*(f"echo {word}" for word in words), then or ":"])
    return lambda listen: Command(argv=("/bin/sh", "-c", text))


async def over(process: RunningProcess) -> Exit:
    how = await process.exited()
    await process.close()
    return how


async def until_it_says(process: RunningProcess, line: str) -> None:
    while line not in process.log.lines:
        process.log.read_new()
        await asyncio.sleep(0.001)


def test_each_has_an_address_of_its_own_and_serves_there(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        adapter, member = FaultyAdapter(), faulty_member()
        first, second = [
            await place.launcher.start(name, lambda listen: adapter.command(member, HERE, listen), HERE)
            for name in ("r0", "r1")
        ]
        assert first.listen != second.listen
        for process in (first, second):
            while await ask(process.listen.url, "/health", timeout_s=5) is not Health.OK:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await process.end(1.0)
            await over(process)

    tell(story)


def test_its_lines_are_followed_to_the_last_one(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        process = await place.launcher.start("r0", says("one", then="sleep 0.1; echo last"), HERE)
        await until_it_says(process, "one")
        how = await process.exited()
        process.log.read_new()
        assert process.log.lines == ("one", "last")
        assert process.log.name
        await process.close()
        assert how.code == 0

    tell(story)


@pytest.mark.parametrize(
    ("then", "how"), [("exit 7", Exit(code=7)), ("kill -SEGV $$", Exit(signal=signal.SIGSEGV))]
)
def test_how_it_ended_is_told(tell: Callable[[Story], None], then: str, how: Exit) -> None:
    async def story(place: Place) -> None:
        assert await over(await place.launcher.start("r0", says(then=then), HERE)) == how

    tell(story)


def test_what_cannot_be_started_says_so(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        with pytest.raises(OSError, match="no-such-engine"):
            await place.launcher.start("r0", lambda listen: Command(argv=("no-such-engine",)), HERE)
        assert not await place.launcher.left()

    tell(story)


def test_its_end_is_the_end_of_all_that_it_started(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        stubborn = "trap : TERM; sleep 987654 & echo up; wait; wait"
        process = await place.launcher.start("r0", says(then=stubborn), HERE)
        await until_it_says(process, "up")
        await process.end(0.1)
        await over(process)
        left = await asyncio.create_subprocess_exec("pgrep", "-f", "sleep 987654", stdout=subprocess.DEVNULL)
        assert await left.wait() == 1
        assert not await place.launcher.left()

    tell(story)


def test_the_next_control_plane_finds_what_runs_and_goes_on_with_it(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        command = says("up", then="sleep 60")
        started = [
            await place.launcher.start(name, command, HERE, note={"slot": name}) for name in ("r0", "r1")
        ]
        second = place.again()
        left = {each.id: each for each in await second.left()}
        assert [dict(left[name].note) for name in ("r0", "r1")] == [{"slot": "r0"}, {"slot": "r1"}]
        assert [each.listen for each in left.values()] == [each.listen for each in started]
        assert left["r0"].runs(command(left["r0"].listen))
        assert not left["r0"].runs(says("else")(left["r0"].listen))
        await second.end([left["r1"]])
        adopted = await second.adopt(left["r0"])
        assert adopted is not None
        assert adopted.pid == started[0].pid
        await until_it_says(adopted, "up")
        await adopted.end(0.1)
        await over(adopted)
        assert not await second.left()
        for process in started:  # a control plane that is killed leaves this to the kernel
            await process.close()

    tell(story)


def test_a_connection_that_is_lost_is_no_exit(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        then = "read line </dev/stdin; while [ ! -e $HOME/.none ]; do sleep 0.2; echo still; done"
        process = await place.launcher.start("r0", says("up", then=then), HERE)
        ended = asyncio.ensure_future(process.exited())
        await until_it_says(process, "up")
        await place.drop()
        await until_it_says(process, "still")
        assert not ended.done()
        await process.end(0.1)
        assert (await ended).signal in (signal.SIGTERM, signal.SIGKILL)
        await process.close()

    tell(story)


def test_a_supervisor_keeps_replicas_there(tell: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        news = asyncio.Event()
        supervisor = Supervisor(
            DesiredState.of(Deployment(members=(faulty_member(replicas=2),))),
            engines={"faulty": FaultyAdapter()},
            effects=Effects(launcher=place.launcher),
            on_change=news.set,
        )
        running = asyncio.create_task(supervisor.run())
        while [each.state for each in supervisor.statuses()] != [ReplicaState.READY] * 2:
            news.clear()
            await news.wait()
        await place.drop()
        await supervisor.stop(1.0)
        await running
        assert not await place.launcher.left()

    tell(story)
