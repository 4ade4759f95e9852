"""Both ends of the control channel, over a socket: who is on the line knows the fleet as it is."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.control.tasks import running
from autoglm_serve.control.workers.control_channel import ControlPlaneEnd
from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.worker_messages import Joined, WakeModel, WorkerMessage
from autoglm_serve.gateway.routing.fleet_holder import FleetHolder
from autoglm_serve.gateway.routing.fleet_link import WorkerEnd

REPLICA = ReplicaView(id="r0", slot=0, model="m", engine="e", state=ReplicaState.READY, base_url="http://a:1")


def view(version: int, *states: ReplicaState) -> FleetView:
    replicas = tuple(
        replace(REPLICA, id=f"r{slot}", slot=slot, state=state) for slot, state in enumerate(states)
    )
    return FleetView(version=version, replicas=replicas)


@dataclass
class Line:
    control: ControlPlaneEnd
    fleet: FleetHolder
    heard: asyncio.Queue[WorkerMessage]
    worker: WorkerEnd

    async def knows(self, wanted: FleetView) -> None:
        """Return once the worker has that view."""
        async with asyncio.timeout(10):
            while self.fleet.view != wanted:
                await self.fleet.changed()


Run = Callable[[Callable[[Line], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def go(scenario: Callable[[Line], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            heard: asyncio.Queue[WorkerMessage] = asyncio.Queue()
            control = ControlPlaneEnd(tmp_path / "control.sock", heard.put_nowait)
            fleet = FleetHolder(asyncio.get_running_loop())
            worker = WorkerEnd(tmp_path / "control.sock", 3, fleet)
            async with running(control.run(), worker.run()):
                await scenario(Line(control, fleet, heard, worker))

        asyncio.run(main())

    return go


def test_a_worker_that_comes_gets_all_and_then_what_changes(run: Run) -> None:
    async def scenario(line: Line) -> None:
        line.control.push(view(1, ReplicaState.READY, ReplicaState.READY))
        await line.knows(view(1, ReplicaState.READY, ReplicaState.READY))
        untouched = line.fleet.view.replicas[0]
        line.control.push(view(2, ReplicaState.READY, ReplicaState.WAITING))
        await line.knows(view(2, ReplicaState.READY, ReplicaState.WAITING))
        assert line.fleet.view.replicas[0] is untouched

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
