"""The supervisor with real processes: the faulty engine, this machine's launcher, the real clock."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.replica.backoff import BackOff
from autoglm_serve.control.replica.effects import Effects, Patience
from autoglm_serve.control.replica.health import Health, ask
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ExitCause, ReplicaState, ReplicaStatus
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.process import ProcessIdentity
from autoglm_serve.launch.records import Records
from tests.control.worlds import run
from tests.fakes.engine_process import REPOSITORY, EngineProcess
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member
from tests.fakes.leftovers import reap_leftovers

pytestmark = pytest.mark.process

S = ReplicaState
QUICK = BackOff(first_s=0.05, most_s=0.2)
IMPATIENT = Patience(
    ready_look_s=0.05,
    health_every_s=0.1,
    health_timeout_s=0.3,
    silences=2,
    stuck_grace_s=0.2,
    first_token_s=1.0,
    work_look_s=0.05,
    standstill_s=0.2,
    token_s=0.3,
)


@dataclass
class Service:
    """A running supervisor, and a way to wait for what it says."""

    supervisor: Supervisor
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> ReplicaStatus:
        return self.supervisor.statuses()[0]

    async def until(self, condition: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
        """Waits for changes, not for time, until the first replica is as wanted."""
        while not condition(self.status):
            self.changed.clear()
            await self.changed.wait()
        return self.status

    async def until_ready(self) -> ReplicaStatus:
        return await self.until(lambda status: status.state is S.READY)


@asynccontextmanager
async def service(
    state_dir: Path,
    member: Member,
    adapter: FaultyAdapter,
    patience: Patience = IMPATIENT,
    use: list[int] | None = None,
) -> AsyncIterator[Service]:
    here: Service
    supervisor = Supervisor(
        DesiredState.of(Deployment(members=(member,))),
        engines={"faulty": adapter},
        effects=Effects(
            launcher=LocalLauncher(state_dir),
            back_off=QUICK,
            patience=patience,
            use=lambda slot: (use[0], use[1]) if use else (0, 0),
        ),
        on_change=lambda: here.changed.set(),
    )
    here = Service(supervisor)
    async with asyncio.TaskGroup() as group:
        group.create_task(supervisor.run())
        try:
            yield here
        finally:
            await supervisor.stop(0.0)
    assert Records(state_dir).read_all() == ()


def test_a_replica_killed_with_sigkill_is_ready_again_and_counted(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, faulty_member(), FaultyAdapter()) as here:
            first = await here.until_ready()
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            await here.until(lambda status: status.state is S.WAITING)
            again = await here.until_ready()
            assert again.pid != first.pid
            assert again.restarts == 1
            assert again.last_exit is not None
            assert again.last_exit.cause is ExitCause.KILLED
            assert await ask(again.base_url, "/health", timeout_s=5) is Health.OK

    run(story)


def test_a_start_that_cannot_succeed_happens_once_and_its_reason_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        adapter = FaultyAdapter(flags=("--say", "fatal: m.gguf is no GGUF", "--exit-code", "13"))
        async with service(tmp_path, faulty_member(), adapter) as here:
            failed = await here.until(lambda status: status.state is S.FAILED)
            assert failed.last_exit is not None
            assert failed.last_exit.summary == "m.gguf is no GGUF"
            assert here.supervisor.log_tail("r0") == ("fatal: m.gguf is no GGUF",)
        assert not (tmp_path / "logs" / "r0.log.1").exists()

    run(story)


def test_starts_that_fail_at_first_succeed_in_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        flags = ("--fail-starts", "2", "--counter", str(tmp_path / "starts"))
        async with service(tmp_path, faulty_member(), FaultyAdapter(flags=flags)) as here:
            assert (await here.until_ready()).restarts == 2

    run(story)


def test_an_engine_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    async def story() -> None:
        adapter = FaultyAdapter(flags=("--sigterm", "ignore"))
        async with service(tmp_path, faulty_member(), adapter) as here:
            await here.until_ready()
            began = time.monotonic()
            await here.supervisor.stop(0.3)
            assert 0.3 <= time.monotonic() - began < 5
            assert here.status.state is S.STOPPED

    run(story)


def test_a_frozen_engine_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, faulty_member(), FaultyAdapter()) as here:
            first = await here.until_ready()
            assert first.pid is not None
            os.kill(first.pid, signal.SIGSTOP)
            stuck = await here.until(lambda status: status.last_exit is not None)
            assert stuck.last_exit is not None
            assert stuck.last_exit.cause is ExitCause.STUCK
            assert (await here.until_ready()).pid != first.pid

    run(story)


def test_an_engine_that_answers_and_gets_on_with_nothing_is_replaced(tmp_path: Path) -> None:
    """Its health path says ok all the time; every request to it hangs from some moment on."""

    async def story() -> None:
        use = [0, 0]
        async with service(tmp_path, faulty_member(), FaultyAdapter(takes_unix=False), use=use) as here:
            first = await here.until_ready()
            assert first.port is not None
            engine = EngineProcess(process=None, port=first.port)  # type: ignore[arg-type]
            await asyncio.to_thread(engine.control, fault="hang", times=1000)
            use[:] = [1, 1]
            stuck = await here.until(lambda status: status.last_exit is not None)
            assert stuck.last_exit is not None
            assert "has got on with nothing" in stuck.last_exit.summary
            assert await ask(first.base_url, "/health", timeout_s=5) is Health.SILENT
            use[:] = [0, 1]
            assert (await here.until_ready()).pid != first.pid

    run(story)


def test_an_engine_that_generates_nothing_is_never_ready(tmp_path: Path) -> None:
    async def story() -> None:
        adapter = FaultyAdapter(flags=("--fault", "status:500", "--fault-times", "1000"))
        async with service(tmp_path, faulty_member(), adapter) as here:
            states: list[ReplicaState] = []

            def is_over(status: ReplicaStatus) -> bool:
                states.append(status.state)
                return status.last_exit is not None

            ended = await here.until(is_over)
            assert ended.last_exit is not None
            assert "gave no token" in ended.last_exit.summary
            assert S.READY not in states

    run(story)


def test_loading_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        adapter = FaultyAdapter(flags=("--ready-after-s", "0.3", "--say", "stage: loading"))
        async with service(tmp_path, faulty_member(), adapter) as here:
            loading = await here.until(lambda status: status.progress is not None)
            assert loading.state is S.STARTING
            ready = await here.until_ready()
            assert ready.start_s is not None
            assert ready.start_s >= 0.3

    run(story)


def test_a_cancelled_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    async def story() -> None:
        supervisor = Supervisor(
            DesiredState.of(Deployment(members=(faulty_member(replicas=2),))),
            engines={"faulty": FaultyAdapter(flags=("--sigterm", "ignore"))},
            effects=Effects(launcher=LocalLauncher(tmp_path)),
        )
        task = asyncio.create_task(supervisor.run())
        await supervisor.first_ready.wait()
        records = Records(tmp_path).read_all()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(records) == 2
        assert not any(record.identity.alive for record in records)

    run(story)


def test_after_the_supervising_process_is_killed_the_next_start_reaps_its_replicas(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.fakes.control_plane", str(tmp_path)]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as control_plane:
        assert control_plane.stdout is not None
        pids = [int(pid) for pid in control_plane.stdout.readline().split()]
        control_plane.kill()
    orphans = [identity for pid in pids if (identity := ProcessIdentity.of(pid)) is not None]
    assert len(orphans) == 2
    assert all(orphan.alive for orphan in orphans)
    reaped = asyncio.run(reap_leftovers(tmp_path))
    assert sorted(record.pid for record in reaped) == sorted(pids)
    assert not any(orphan.alive for orphan in orphans)
