"""Restarts replicas one at a time, so that a service with two of them never has none.

Each is drained first: the gateway sends it nothing new, and what it carries ends by itself or, when the time
for that is over, goes on elsewhere. The next is touched once it is ready again. A model with a single
replica gets a stand-in meanwhile, where it takes no GPU and there is memory for it; where not, requests wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoglm_serve.control.clock import Clock
from autoglm_serve.control.fleet.places import Place
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.replica.controller import ReplicaController
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus

_LOOK_S = 0.05
_GRACE_S = 5.0
"""For a process that has nothing left to finish."""
_ASLEEP = frozenset({ReplicaState.STOPPED})

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """What a rolling restart works with."""

    supervisor: Supervisor
    in_flight: Callable[[int], int]
    """Requests that the replica on a slot carries."""
    room_for: Callable[[int], bool]
    """Whether there is memory for another process like the one with this pid."""
    clock: Clock

    async def restart(self, ids: Sequence[str], drain_s: float, tell: Tell) -> bool:
        """Restarts these replicas; false where one did not come back, and then no other is touched."""
        for number, replica_id in enumerate(ids, 1):
            controller = self.supervisor.controller(replica_id)
            if not isinstance(controller, ReplicaController):
                tell(f"{replica_id}: is not ours to restart")
            elif controller.cell.state in _ASLEEP:
                tell(f"{replica_id}: sleeps; it is new when it wakes")
            elif not await self._restart_one(controller, drain_s, tell, f"({number} of {len(ids)})"):
                return False
        return True

    async def conform(self, wanted: Sequence[Place], drain_s: float, tell: Tell) -> bool:
        """Makes the replicas what `wanted` says: adds, restarts what was started otherwise, removes."""
        kept = {place.id for place in wanted}
        surplus = [place.id for place in self.supervisor.places() if place.id not in kept]
        present = {place.id for place in self.supervisor.places()}
        self.supervisor.adapt({place.id: place for place in wanted})
        for place in wanted:
            if place.id not in present and not await self._add(place, tell):
                return False
        if not await self.restart(self._outdated(), drain_s, tell):
            return False
        for replica_id in surplus:
            await self._remove(replica_id, drain_s, tell)
        return True

    def _outdated(self) -> tuple[str, ...]:
        controllers = (self.supervisor.controller(place.id) for place in self.supervisor.places())
        return tuple(
            each.cell.status.id
            for each in controllers
            if isinstance(each, ReplicaController)
            and (each.outdated or each.cell.state is ReplicaState.FAILED)
        )

    async def _restart_one(
        self, controller: ReplicaController, drain_s: float, tell: Tell, which: str
    ) -> bool:
        name = controller.cell.status.id
        stand_in = self._stand_in(controller.cell.status, tell)
        if stand_in and not await self._add(stand_in, tell, why=f", in place of {name}, the only one"):
            await self.supervisor.remove(stand_in.id, _GRACE_S)
            return False
        began_s = self.clock.now_s()
        tell(f"{name}: draining, {self.in_flight(controller.cell.status.slot)} requests in flight {which}")
        await self._drained(controller, drain_s, tell)
        controller.renew(_GRACE_S)
        good = await self._ready(name, tell)
        if good:
            tell(f"{name}: ready again after {self.clock.now_s() - began_s:.1f} s")
        if stand_in:
            await self._remove(stand_in.id, drain_s, tell)
        return good

    async def _drained(self, controller: ReplicaController, drain_s: float, tell: Tell) -> None:
        """Returns when it carries nothing, or the time for that is over."""
        if controller.cell.state is not ReplicaState.READY:
            return
        controller.drain()
        slot, until_s = controller.cell.status.slot, self.clock.now_s() + drain_s
        await self.clock.sleep(_LOOK_S)  # a request may have been on its way as the gateway heard of it
        while (left := self.in_flight(slot)) and self.clock.now_s() < until_s:
            if controller.gone or self.supervisor.stopping:
                return
            await self.clock.sleep(_LOOK_S)
        if left:
            tell(f"{controller.cell.status.id}: {left} requests have not ended; they go on elsewhere")

    async def _ready(self, replica_id: str, tell: Tell) -> bool:
        """Waits until it is ready; false where its start failed."""
        before = self._status(replica_id)
        while (status := self._status(replica_id)) is not None and not self.supervisor.stopping:
            if status.state is ReplicaState.READY and status.pid is not None:
                return True
            failed = status.last_exit is not None and before is not None
            if failed and before is not None and status.last_exit is not before.last_exit:
                assert status.last_exit is not None
                tell(f"{replica_id}: did not come back. {status.last_exit.summary} {status.last_exit.remedy}")
                return False
            await self.supervisor.change()
        tell(f"{replica_id}: the service is stopping")
        return False

    def _stand_in(self, status: ReplicaStatus, tell: Tell) -> Place | None:
        """A place for a replica that serves instead of the only one meanwhile; None where there is no need or
        no room.
        """
        if status.state is not ReplicaState.READY or self._has_others(status):
            return None
        if status.gpus or status.pid is None or not self.room_for(status.pid):
            tell(f"{status.id}: is the only one, and there is no room for another; requests wait for it")
            return None
        place = next(place for place in self.supervisor.places() if place.id == status.id)
        return replace(place, slot=self.supervisor.free_slot())

    def _has_others(self, status: ReplicaStatus) -> bool:
        return any(
            each.model == status.model and each.id != status.id and each.state is ReplicaState.READY
            for each in self.supervisor.statuses()
        )

    async def _add(self, place: Place, tell: Tell, why: str = "") -> bool:
        tell(f"{place.id}: starting{why}")
        self.supervisor.add(place)
        if place.member.on_demand or place.member.upstreams:
            return True
        return await self._ready(place.id, tell)

    async def _remove(self, replica_id: str, drain_s: float, tell: Tell) -> None:
        controller = self.supervisor.controller(replica_id)
        if isinstance(controller, ReplicaController):
            await self._drained(controller, drain_s, tell)
        await self.supervisor.remove(replica_id, _GRACE_S)
        tell(f"{replica_id}: gone")

    def _status(self, replica_id: str) -> ReplicaStatus | None:
        controller = self.supervisor.controller(replica_id)
        return controller.cell.status if controller is not None else None
