"""Keeps every replica of a deployment: starts them, watches them, stops them.

Owns the controllers. Others read `statuses()`, a tuple of frozen values, and are told when it changed.
Knows nothing of the gateway.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from types import MappingProxyType

from autoglm_serve.control.clock import Clock, RealClock
from autoglm_serve.control.fleet.places import Place, claims
from autoglm_serve.control.replica import health
from autoglm_serve.control.replica.attached import AddressController
from autoglm_serve.control.replica.backoff import BackOff
from autoglm_serve.control.replica.controller import Found, ReplicaController
from autoglm_serve.control.replica.effects import Ask, Counters, Effects, Generate, Patience
from autoglm_serve.core.plan import Deployment
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.base import Launcher

SLEEP_GRACE_S = 30.0
"""For what a model on demand still finishes when it is put to sleep."""


class Supervisor:
    """The life of a deployment's replicas. `run` is its task; everything else returns at once."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        engines: Mapping[str, Engine],
        launcher: Launcher,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        on_change: Callable[[], None] = lambda: None,
        ask: Ask = health.ask,
        generate: Generate = health.generate,
        counters: Counters = health.counters,
        use: Callable[[int], tuple[int, int]] = lambda slot: (0, 0),
        patience: Patience | None = None,
        back_off: BackOff | None = None,
        places: Iterable[Place] | None = None,
        found: Mapping[str, Found] = MappingProxyType({}),
    ) -> None:
        """`use` tells of a slot how many requests are in flight and how many it was given so far; `found` are
        the processes that an earlier control plane left, by the id of their place."""
        self.first_ready = asyncio.Event()
        """Set once a replica can serve."""
        self._gone = asyncio.Event()
        self._on_change = on_change
        self._engines = engines
        self._effects = Effects(
            launcher=launcher,
            clock=clock or RealClock(),
            rng=rng or random.Random(),
            ask=ask,
            generate=generate,
            counters=counters,
            use=use,
            on_change=self._changed,
            patience=patience or Patience(),
            back_off=back_off or BackOff(),
        )
        self._places = tuple(places or (place for place, _ in claims(deployment, engines)))
        self._controllers = tuple(
            _controller(place, engines, self._effects, found.get(place.id)) for place in self._places
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._news = asyncio.Event()
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
        return tuple(controller.cell.status for controller in self._controllers)

    def log_tail(self, replica_id: str) -> tuple[str, ...]:
        """The last lines of a replica's log, oldest first."""
        return next(k.log_tail for k in self._controllers if k.cell.status.id == replica_id)

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
        self._news.set()
        await self._gone.wait()

    # changes to what runs; `rolling` puts them in order

    @property
    def stopping(self) -> bool:
        return self._stopping

    def controller(self, replica_id: str) -> ReplicaController | AddressController | None:
        return next((each for each in self._controllers if each.cell.status.id == replica_id), None)

    def places(self) -> tuple[Place, ...]:
        """Every replica's place, in the order of `statuses`."""
        return self._places

    def free_slot(self) -> int:
        taken = {place.slot for place in self._places}
        return next(slot for slot in count() if slot not in taken)

    def add(self, place: Place) -> None:
        """One more replica."""
        controller = _controller(place, self._engines, self._effects, None)
        self._places += (place,)
        self._controllers += (controller,)
        self._run(controller)

    async def remove(self, replica_id: str, grace_s: float) -> None:
        """Ends a replica for good and forgets it."""
        controller = self.controller(replica_id)
        if controller is None:
            return
        controller.end(grace_s)
        await asyncio.wait((self._tasks.pop(replica_id),))
        kept = [
            (place, each)
            for place, each in zip(self._places, self._controllers, strict=True)
            if each is not controller
        ]
        self._places = tuple(place for place, _ in kept)
        self._controllers = tuple(each for _, each in kept)
        self._changed()

    def adapt(self, places: Mapping[str, Place]) -> None:
        """What replicas are to be from their next start on, by id; told as one change."""
        self._quiet = True
        for place, controller in zip(self._places, self._controllers, strict=True):
            new = places.get(place.id)
            if new is not None and new != place and isinstance(controller, ReplicaController):
                controller.adapt(new.member, self._engines[new.member.plan.engine])
        self._places = tuple(places.get(place.id, place) for place in self._places)
        self._quiet = False
        self._changed()

    async def change(self) -> None:
        """Returns at the next change of a status, or when everything is to stop."""
        self._news.clear()
        if not self._stopping:
            await self._news.wait()

    def _run(self, controller: ReplicaController | AddressController) -> None:
        name = controller.cell.status.id
        self._tasks[name] = self._group.create_task(controller.run(), name=f"controller {name}")

    def _changed(self) -> None:
        if self._quiet:
            return
        self._news.set()
        if any(controller.cell.state is ReplicaState.READY for controller in self._controllers):
            self.first_ready.set()
        self._on_change()

    def _of(self, model: str) -> Iterator[ReplicaController | AddressController]:
        return (controller for controller in self._controllers if controller.cell.status.model == model)


def _controller(
    place: Place, engines: Mapping[str, Engine], effects: Effects, found: Found | None
) -> ReplicaController | AddressController:
    member = place.member
    engine = engines[member.plan.engine]
    status = _first_status(place)
    if member.upstreams:
        return AddressController(status, engine, effects)
    return ReplicaController(status, member, place.index, engine, effects, found=found)


def _first_status(place: Place) -> ReplicaStatus:
    member, index = place.member, place.index
    groups = member.plan.gpu_groups
    return ReplicaStatus(
        id=place.id,
        slot=place.slot,
        model=member.name,
        engine=member.plan.engine,
        state=ReplicaState.STOPPED,
        base_url=member.upstreams[index] if member.upstreams else "",
        gpus=groups[index] if index < len(groups) else (),
    )
