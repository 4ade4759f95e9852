"""Goes over from what runs to what ought to run, one replica at a time: a service with two never has none.

Which correction is next is decided in `reconcile`; how it is made so that no client feels it, here. A replica
is drained first: the gateway sends it nothing new, and what it carries ends by itself or, when the time for
that is over, goes on elsewhere. The next is touched once it is ready again. A model with a single replica
gets a stand-in meanwhile, where it takes no GPU and there is memory for it; where not, requests wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoglm_serve.control.fleet.desired import DesiredState, one_more
from autoglm_serve.control.fleet.reconcile import Correction, Remove, Renew, StartReplica, next_correction
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.fleet.undertaking import Tell
from autoglm_serve.control.replica.base import Controller
from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.runtime.clock import Clock

_LOOK_S = 0.05
_GRACE_S = 5.0
"""For a process that has nothing left to finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """What going over works with."""

    supervisor: Supervisor
    in_flight: Callable[[int], int]
    """Requests that the replica on a slot carries."""
    room_for: Callable[[int], bool]
    """Whether there is memory for another process like the one with this pid."""
    clock: Clock

    async def restart(self, ids: Sequence[str], drain_s: float, tell: Tell) -> bool:
        """Restarts these replicas; false where one did not come back, and then no other is touched."""
        untouched = tuple(self._untouched(ids))
        if not await self.bring_about(self.supervisor.desired.renewed(ids), drain_s, tell):
            return False
        for line in untouched:
            tell(line)
        return True

    async def conform(self, desired: DesiredState, drain_s: float, tell: Tell) -> bool:
        """Makes the replicas what `desired` says; one that has failed for good gets another try."""
        failed = [each.id for each in self.supervisor.statuses() if each.state is ReplicaState.FAILED]
        return await self.bring_about(desired.renewed(failed), drain_s, tell)

    async def bring_about(self, desired: DesiredState, drain_s: float, tell: Tell) -> bool:
        """Makes one correction after the other; false where one fails, and then no other is made."""
        self.supervisor.adapt(desired)
        while (correction := next_correction(desired, self.supervisor.present())) is not None:
            if not await self._make(correction, drain_s, tell):
                return False
        return True

    async def _make(self, correction: Correction, drain_s: float, tell: Tell) -> bool:
        match correction:
            case StartReplica(replica=replica):
                return await self._add(replica, tell)
            case Renew(id=replica_id):
                controller = self.supervisor.controller(replica_id)
                assert controller is not None, "only who is there is renewed"
                return await self._renew(controller, drain_s, tell)
            case Remove(id=replica_id):
                await self._remove(replica_id, drain_s, tell)
                return not self.supervisor.stopping

    def _untouched(self, ids: Sequence[str]) -> list[str]:
        """What there is to say of those that are not restarted."""
        asked = [each for name in ids if (each := self.supervisor.controller(name)) is not None]
        others = [f"{each.status.id}: is not ours to restart" for each in asked if not each.ours]
        asleep = [each for each in asked if each.ours and each.status.state is ReplicaState.STOPPED]
        return others + [f"{each.status.id}: sleeps; it is new when it wakes" for each in asleep]

    async def _renew(self, controller: Controller, drain_s: float, tell: Tell) -> bool:
        name = controller.status.id
        stand_in = self._stand_in(controller, tell)
        if stand_in and not await self._add(stand_in, tell, why=f", in place of {name}, the only one"):
            await self.supervisor.remove(stand_in.id, _GRACE_S)
            return False
        began_s = self.clock.now_s()
        tell(f"{name}: draining, {self.in_flight(controller.status.slot)} requests in flight")
        await self._drained(controller, drain_s, tell)
        controller.renew(_GRACE_S)
        good = await self._ready(name, tell)
        if good:
            tell(f"{name}: ready again after {self.clock.now_s() - began_s:.1f} s")
        if stand_in:
            await self._remove(stand_in.id, drain_s, tell)
        return good

    async def _drained(self, controller: Controller, drain_s: float, tell: Tell) -> None:
        """Returns when it carries nothing, or the time for that is over."""
        if controller.status.state is not ReplicaState.READY:
            return
        controller.drain()
        slot, until_s = controller.status.slot, self.clock.now_s() + drain_s
        await self.clock.sleep(_LOOK_S)  # a request may have been on its way as the gateway heard of it
        while (left := self.in_flight(slot)) and self.clock.now_s() < until_s:
            if controller.status.pid is None or self.supervisor.stopping:
                return
            await self.clock.sleep(_LOOK_S)
        if left:
            tell(f"{controller.status.id}: {left} requests have not ended; they go on elsewhere")

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

    def _stand_in(self, controller: Controller, tell: Tell) -> DesiredReplica | None:
        """A replica that serves instead of the only one meanwhile; None where there is no need or no room."""
        status = controller.status
        if status.state is not ReplicaState.READY or self._has_others(status):
            return None
        if status.gpus or status.pid is None or not self.room_for(status.pid):
            tell(f"{status.id}: is the only one, and there is no room for another; requests wait for it")
            return None
        return one_more(self.supervisor.desired.replicas, controller.desired)

    def _has_others(self, status: ReplicaStatus) -> bool:
        return any(
            each.model == status.model and each.id != status.id and each.state is ReplicaState.READY
            for each in self.supervisor.statuses()
        )

    async def _add(self, replica: DesiredReplica, tell: Tell, why: str = "") -> bool:
        tell(f"{replica.id}: starting{why}")
        self.supervisor.add(replica)
        if replica.member.on_demand or replica.placement.address:
            return True
        return await self._ready(replica.id, tell)

    async def _remove(self, replica_id: str, drain_s: float, tell: Tell) -> None:
        controller = self.supervisor.controller(replica_id)
        if controller is not None and controller.ours:
            await self._drained(controller, drain_s, tell)
        await self.supervisor.remove(replica_id, _GRACE_S)
        tell(f"{replica_id}: gone")

    def _status(self, replica_id: str) -> ReplicaStatus | None:
        controller = self.supervisor.controller(replica_id)
        return controller.status if controller is not None else None
