"""Keeps every replica of a deployment: starts them, watches them, stops them.

Owns the controllers. Others read `statuses()`, a tuple of frozen values, and are told when it changed.
Knows nothing of the gateway.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.reconcile import Present
from autoglm_serve.control.replica.attached import AddressController
from autoglm_serve.control.replica.base import Controller
from autoglm_serve.control.replica.controller import ReplicaController
from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.base import RunningProcess
from autoglm_serve.runtime.observable import Observable

SLEEP_GRACE_S = 30.0
"""For what a model on demand still finishes when it is put to sleep."""


class Supervisor:
    """The life of a deployment's replicas. `run` is its task; everything else returns at once."""

    def __init__(
        self,
        desired: DesiredState,
        *,
        engines: Mapping[str, Engine],
        effects: Effects,
        on_change: Callable[[], None] = lambda: None,
        found: Mapping[str, RunningProcess] = MappingProxyType({}),
    ) -> None:
        """`found` are the processes that an earlier control plane left of what ought to run, by the id of
        their replica; `on_change` is called when a status has changed."""
        self.first_ready = asyncio.Event()
        """Set once a replica can serve."""
        self._gone = asyncio.Event()
        self._on_change = on_change
        self._engines = engines
        self._effects = effects
        self._controllers = tuple(self._controller(each, found.get(each.id)) for each in desired.replicas)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._statuses = Observable(tuple(controller.status for controller in self._controllers))
        self._quiet = self._stopping = False
        if found:
            self.first_ready.set()

    async def run(self) -> None:
        """Keeps every replica until `stop`."""
        try:
            async with self._group:
                for controller in self._controllers:
                    self._run(controller)
        finally:
            self._gone.set()

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        """Every replica as it is now, in the order of slots."""
        return self._statuses.value

    def log_tail(self, replica_id: str) -> tuple[str, ...]:
        """The last lines of a replica's log, oldest first."""
        return next(k.log_tail for k in self._controllers if k.status.id == replica_id)

    def wake(self, model: str) -> None:
        """Starts a model on demand; nothing happens to one that runs."""
        for controller in self._of(model):
            controller.wake()

    def sleep(self, model: str) -> None:
        """Stops a model on demand until it is woken again."""
        for controller in self._of(model):
            controller.sleep(SLEEP_GRACE_S)

    def drain(self) -> None:
        """No new requests for anybody; what is in flight goes on."""
        for controller in self._controllers:
            controller.drain()

    async def stop(self, grace_s: float) -> None:
        """Ends every replica within the grace; returns when `run` does. A second call may hurry the first."""
        self._stopping = True
        for controller in self._controllers:
            controller.end(grace_s)
        self._tell()
        await self._gone.wait()

    # the corrections towards what ought to run; `rolling` makes them in order

    @property
    def stopping(self) -> bool:
        return self._stopping

    def controller(self, replica_id: str) -> Controller | None:
        return next((each for each in self._controllers if each.status.id == replica_id), None)

    @property
    def desired(self) -> DesiredState:
        """What every replica that there is was last told to be, in the order of `statuses`."""
        return DesiredState(replicas=tuple(each.desired for each in self._controllers))

    def present(self) -> tuple[Present, ...]:
        """Every replica that there is, held against what it was told to be."""
        return tuple(
            Present(replica=each.desired, holds=each.holds, outdated=each.outdated)
            for each in self._controllers
        )

    def add(self, replica: DesiredReplica) -> None:
        """One more replica."""
        controller = self._controller(replica)
        self._controllers += (controller,)
        self._tell()
        self._run(controller)

    async def remove(self, replica_id: str, grace_s: float) -> None:
        """Ends a replica for good and forgets it."""
        controller = self.controller(replica_id)
        if controller is None:
            return
        controller.end(grace_s)
        await asyncio.wait((self._tasks.pop(replica_id),))
        self._controllers = tuple(each for each in self._controllers if each is not controller)
        self._changed()

    def adapt(self, desired: DesiredState) -> None:
        """What the replicas that there are ought to be from their next start on; told as one change."""
        wanted = {each.id: each for each in desired.replicas}
        self._quiet = True
        for controller in self._controllers:
            new = wanted.get(controller.desired.id)
            if new is not None and new != controller.desired:
                controller.adapt(new, self._engines[new.member.plan.engine])
        self._quiet = False
        self._changed()

    async def change(self) -> None:
        """Returns at the next change of a status, or when everything is to stop."""
        if not self._stopping:
            await self._statuses.changed()

    def _controller(self, replica: DesiredReplica, found: RunningProcess | None = None) -> Controller:
        engine = self._engines[replica.member.plan.engine]
        if replica.placement.address:
            return AddressController(replica, engine, self._effects, self._changed)
        return ReplicaController(replica, engine, self._effects, self._changed, found=found)

    def _run(self, controller: Controller) -> None:
        name = controller.status.id
        self._tasks[name] = self._group.create_task(controller.run(), name=f"controller {name}")

    def _changed(self) -> None:
        if self._quiet:
            return
        self._tell()
        if any(each.state is ReplicaState.READY for each in self.statuses()):
            self.first_ready.set()
        self._on_change()

    def _tell(self) -> None:
        self._statuses.replace(tuple(controller.status for controller in self._controllers))

    def _of(self, model: str) -> Iterator[Controller]:
        return (each for each in self._controllers if each.status.model == model)
