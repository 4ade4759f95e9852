"""Both ends of the control channel, over a socket: who is on the line knows the fleet as it is."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.control.workers.control_channel import ControlPlaneEnd
from autoglm_serve.core.control_messages import Joined, WakeModel, WorkerMessage
from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.status import GatewayReport, ServiceStatus
from autoglm_serve.gateway.routing.fleet_link import WorkerEnd
from autoglm_serve.runtime.observable import Observable
from autoglm_serve.runtime.tasks import running

STATUS = ServiceStatus(url="http://x", version="1", gateway=GatewayReport(restarts=2))
REPLICA = ReplicaView(id="r0", slot=0, model="m", engine="e", state=ReplicaState.READY, base_url="http://a:1")


def view(version: int, *states: ReplicaState) -> FleetView:
    replicas = tuple(
        replace(REPLICA, id=f"r{slot}", slot=slot, state=state) for slot, state in enumerate(states)
    )
    return FleetView(version=version, replicas=replicas)


@dataclass
class Line:
    control: ControlPlaneEnd
    fleet: Observable[FleetView]
    heard: asyncio.Queue[WorkerMessage]
    worker: WorkerEnd

    async def knows(self, wanted: FleetView) -> None:
        """Return once the worker has that view."""
        async with asyncio.timeout(10):
            while self.fleet.value != wanted:
                await self.fleet.changed()


Run = Callable[[Callable[[Line], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def go(scenario: Callable[[Line], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            heard: asyncio.Queue[WorkerMessage] = asyncio.Queue()
            control = ControlPlaneEnd(tmp_path / "control.sock", heard.put_nowait, lambda: STATUS)
            fleet = Observable(FleetView())
            worker = WorkerEnd(tmp_path / "control.sock", 3, fleet)
            async with running(control.run(), worker.run()):
                await scenario(Line(control, fleet, heard, worker))

        asyncio.run(main())

    return go


def test_a_worker_that_comes_gets_all_and_then_what_changes(run: Run) -> None:
    async def scenario(line: Line) -> None:
        line.control.push(view(1, ReplicaState.READY, ReplicaState.READY))
        await line.knows(view(1, ReplicaState.READY, ReplicaState.READY))
        untouched = line.fleet.value.replicas[0]
        line.control.push(view(2, ReplicaState.READY, ReplicaState.WAITING))
        await line.knows(view(2, ReplicaState.READY, ReplicaState.WAITING))
        assert line.fleet.value.replicas[0] is untouched

    run(scenario)


def test_changes_in_a_row_arrive_in_their_order(run: Run) -> None:
    async def scenario(line: Line) -> None:
        line.control.push(view(1))
        await line.knows(view(1))
        for version in range(2, 30):
            line.control.push(view(version, *(version % 4) * (ReplicaState.READY,)))
        await line.knows(view(29, ReplicaState.READY))

    run(scenario)


def test_a_worker_that_is_out_of_step_asks_for_all_again(run: Run) -> None:
    async def scenario(line: Line) -> None:
        line.control.push(view(1, ReplicaState.READY))
        await line.knows(view(1, ReplicaState.READY))
        line.fleet.replace(view(7, ReplicaState.FAILED))  # as from another control plane
        line.control.push(view(2, ReplicaState.WAITING))
        await line.knows(view(2, ReplicaState.WAITING))

    run(scenario)


def test_a_model_that_is_waited_for_is_named_to_the_control_plane(run: Run) -> None:
    async def scenario(line: Line) -> None:
        line.control.push(view(1))
        await line.knows(view(1))
        line.worker.wake("speech")
        async with asyncio.timeout(10):
            assert await line.heard.get() == Joined(worker_id=3, pid=os.getpid())
            assert await line.heard.get() == WakeModel(model="speech")

    run(scenario)


def test_what_only_the_control_plane_knows_is_answered_to_all_who_ask(run: Run) -> None:
    async def scenario(line: Line) -> None:
        assert await line.worker.status(10) is None  # before it is on the line
        line.control.push(view(1))
        await line.knows(view(1))
        answers = await asyncio.gather(*(line.worker.status(10) for _ in range(3)))
        assert answers == [STATUS, STATUS, STATUS]
        assert await line.worker.status(10) == STATUS

    run(scenario)


def test_a_control_plane_that_does_not_answer_is_waited_for_no_longer_than_was_said(tmp_path: Path) -> None:
    async def main() -> None:
        lines: asyncio.Queue[bytes] = asyncio.Queue()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for said in reader:
                lines.put_nowait(said)
            writer.close()

        server = await asyncio.start_unix_server(deaf, tmp_path / "control.sock")
        worker = WorkerEnd(tmp_path / "control.sock", 3, Observable(FleetView()))
        async with server, running(worker.run()):
            await lines.get()
            assert await worker.status(0.01) is None
            assert await worker.status(0.01) is None
            assert lines.qsize() == 1  # it is not asked again while it owes an answer

    asyncio.run(main())
