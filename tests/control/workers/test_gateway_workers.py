"""Gateway workers with real processes: one that ends comes back, whatever the machine lacks meanwhile."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoglm_serve.control.workers.gateway_workers import GatewayWorkers
from autoglm_serve.engines.base import Command
from autoglm_serve.launch.base import NO_NOTE
from autoglm_serve.launch.local import LocalLauncher, LocalProcess
from autoglm_serve.launch.records import Records
from autoglm_serve.runtime.clock import RealClock
from tests.control.worlds import run
from tests.fakes.clock import FakeClock, settled

pytestmark = pytest.mark.process


class FullDisk(LocalLauncher):
    """Cannot start anything `failures` times."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.failures = 0
        self.started: asyncio.Queue[LocalProcess] = asyncio.Queue()

    def spawn(
        self,
        replica_id: str,
        command: Command,
        port: int,
        *,
        listener: int | None = None,
        socket_path: Path | None = None,
        note: Mapping[str, str] = NO_NOTE,
    ) -> LocalProcess:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        process = super().spawn(replica_id, command, port, listener=listener, note=note)
        self.started.put_nowait(process)
        return process


def test_a_full_disk_does_not_end_the_service_with_a_worker(tmp_path: Path) -> None:
    async def story() -> None:
        launcher = FullDisk(tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            workers = GatewayWorkers(
                [listener],
                lambda worker_id, descriptor: Command(argv=("/bin/sleep", "60")),
                launcher=launcher,
                clock=RealClock(),
            )
            task = asyncio.create_task(workers.run())
            first = await launcher.started.get()
            launcher.failures = 2
            os.kill(first.pid, signal.SIGKILL)
            second = await launcher.started.get()
            assert second.pid != first.pid
            assert launcher.failures == 0
            launcher.failures = 1
            told: list[str] = []
            assert not await workers.renew(told.append)
            assert "the old one stays" in told[-1]
            await workers.drain(0.0)
            await task

    run(story)


def test_a_worker_that_has_stopped_getting_on_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        launcher, clock, beats = FullDisk(tmp_path), FakeClock(), iter(range(10**6))
        alive, gone = True, asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            workers = GatewayWorkers(
                [listener],
                lambda worker_id, descriptor: Command(argv=("/bin/sleep", "60")),
                launcher=launcher,
                clock=clock,
                left=lambda worker_id: gone.set(),
                beats=lambda worker_id: next(beats) if alive else -1,
            )
            task = asyncio.create_task(workers.run())
            first = await launcher.started.get()
            await clock.advance(60)
            alive = False
            await clock.advance(9)
            alive = True
            await clock.advance(2)
            alive = False
            clock.jump(3600)  # everything was stopped
            await clock.advance(9)
            assert first.record.identity.alive
            await clock.advance(3)
            await gone.wait()
            await clock.advance(5)
            second = await launcher.started.get()
            await clock.advance(600)  # it has never got on: it may not know how to tell
            assert second.record.identity.alive
            await workers.drain(0.0)
            await task

    run(story)


@dataclass
class OneListener:
    workers: GatewayWorkers
    launcher: FullDisk
    first: LocalProcess
    gone: asyncio.Queue[int]

    async def started(self) -> LocalProcess:
        return await self.launcher.started.get()

    async def kill(self, process: LocalProcess) -> None:
        """Returns once it has been followed to its end."""
        os.kill(process.pid, signal.SIGKILL)
        assert process.record.id == f"gateway-{await self.gone.get()}"


@asynccontextmanager
async def one_worker(tmp_path: Path) -> AsyncIterator["OneListener"]:
    """Workers at one listener, the first of which serves."""
    launcher, gone = FullDisk(tmp_path), asyncio.Queue[int]()
    left_to_itself = Command(argv=("/bin/sh", "-c", "trap : QUIT; echo up; while :; do sleep 9; done"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = GatewayWorkers(
            [listener],
            lambda worker_id, descriptor: left_to_itself,
            launcher=launcher,
            clock=RealClock(),
            left=gone.put_nowait,
        )
        task = asyncio.create_task(workers.run())
        first = await launcher.started.get()
        while "up" not in first.log.lines:  # before that a signal would end it
            first.log.read_new()
            await asyncio.sleep(0)
        workers.serves(first.pid)
        try:
            yield OneListener(workers, launcher, first, gone)
        finally:
            await workers.drain(0.0)
            await task


def living(tmp_path: Path) -> dict[str, int]:
    return {record.id: record.pid for record in Records(tmp_path).read_all() if record.identity.alive}


def test_a_worker_that_dies_while_its_successor_comes_up_is_succeeded_by_that_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_worker(tmp_path) as here:
            renewed = asyncio.create_task(here.workers.renew())
            second = await here.started()
            await here.kill(here.first)
            here.workers.serves(second.pid)
            assert await renewed
            assert living(tmp_path) == {second.record.id: second.pid}
            again = asyncio.create_task(here.workers.renew())  # and so can that be
            third = await here.started()
            here.workers.serves(third.pid)
            assert await again
            assert here.workers.report().serving == 1

    run(story)


def test_a_successor_that_dies_with_the_one_before_it_is_not_the_last(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_worker(tmp_path) as here:
            renewed = asyncio.create_task(here.workers.renew())
            second = await here.started()
            await here.kill(here.first)
            await here.kill(second)
            assert not await renewed
            third = await here.started()
            assert living(tmp_path) == {third.record.id: third.pid}

    run(story)


def test_a_worker_that_somebody_tells_to_leave_has_a_successor_while_it_finishes(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_worker(tmp_path) as here:
            here.workers.leaves(here.first.pid)
            second = await here.started()
            assert living(tmp_path) == {"retired-0": here.first.pid, "gateway-1": second.pid}
            here.workers.leaves(here.first.pid)  # it says so again: nothing follows from it
            assert here.launcher.started.empty()

    run(story)


def waits_at_gate(process: LocalProcess) -> bool:
    argv = Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return argv != [word.encode() for word in process.record.argv]


def test_a_worker_that_is_busy_for_long_is_left_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A few bodies of the largest size, on a busy machine. One that never ends is a hang."""

    async def story() -> None:
        launcher, clock, beats = FullDisk(tmp_path), FakeClock(), iter(range(3))
        gone = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            workers = GatewayWorkers(
                [listener],
                lambda worker_id, descriptor: Command(argv=("/bin/sh", "-c", "while :; do :; done")),
                launcher=launcher,
                clock=clock,
                left=lambda worker_id: gone.set(),
                beats=lambda worker_id: next(beats, 3),
            )
            task = asyncio.create_task(workers.run())
            first = await launcher.started.get()
            while waits_at_gate(first):
                await settled()
            await clock.advance(70)
            await gone.wait()
            assert "has not moved for 60 s" in caplog.text
            await clock.advance(5)
            await launcher.started.get()
            await workers.drain(0.0)
            await task

    run(story)
