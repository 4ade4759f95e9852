"""Runs the scheduler in one worker: tells it what happens and when, and carries out what it decides.

A thin shell around `route.scheduler`: here are the loop, the table of loads that the workers share, the fleet
as it changes, and the futures of those that wait. Nothing is decided here.
"""

import asyncio
import logging
from collections.abc import Callable

from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.routing.load import LoadTable, NoSuchSlot, check_slot
from autoglm_serve.route.scheduler import (
    Bounds,
    Effect,
    Exhausted,
    LeftAlone,
    Placed,
    Rejected,
    RoutingRequest,
    Scheduler,
    Wake,
)
from autoglm_serve.runtime.observable import Observable

log = logging.getLogger(__name__)

_READ_ALL_S = 1.0
"""Every load is read anew so often: a processor may show another's writes out of their order."""


class Reservation:
    """A replica that carries a request until the `with` block ends."""

    __slots__ = ("_router", "_ticket", "carried_tokens", "cost_tokens", "replica")

    def __init__(self, router: "Router", placed: Placed, cost_tokens: int) -> None:
        self._router: Router | None = router
        self._ticket = placed.ticket
        self.replica = placed.replica
        self.carried_tokens = placed.carried_tokens
        """What the replica had outstanding with it."""
        self.cost_tokens = cost_tokens

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """The replica is done with it; a second time does nothing."""
        router, self._router = self._router, None
        if router is not None:
            router.done(self._ticket, self)


_Outcome = Reservation | Rejected | None
_Turn = tuple[RoutingRequest, "asyncio.Future[_Outcome]"]


class Router:
    """Finds a replica for each request, in turn."""

    def __init__(
        self,
        fleet: Observable[FleetView],
        load: LoadTable,
        loop: asyncio.AbstractEventLoop,
        *,
        workers: int,
        bounds: Bounds,
        wake: Callable[[str], None],
    ) -> None:
        self._load = load
        self._others = load.others(workers)
        self._loop = loop
        self._now = loop.time
        self._wake = wake
        self._scheduler = Scheduler(bounds, loop.time())
        self._tickets = 0
        self._turns: dict[int, _Turn] = {}
        """Of those that wait."""
        self._replicas: dict[int, ReplicaView] = {}
        """As the scheduler was told of them, by slot."""
        self._slots: dict[str, int] = {}
        """By address."""
        self._alarm: asyncio.Handle | None = None
        self._alarm_s = 0.0
        """When it rings."""
        self._read_all_s = 0.0
        self._explains = log.isEnabledFor(logging.DEBUG)
        self.fleet_changed(fleet.value)

    @property
    def waiting(self) -> int:
        return self._scheduler.waiting

    async def place(
        self, request: RoutingRequest, *, wait_ready_s: float, wait_turn_s: float
    ) -> Reservation | None:
        """A replica for the request; None if those that could be tried have been.

        Raises Refusal if none is ready within `wait_ready_s` or has room within `wait_turn_s`.
        """
        self._tickets = ticket = self._tickets + 1
        now_s = self._now()
        self._hear_others(now_s)
        effects = self._scheduler.ask(ticket, request, now_s, ready_s=wait_ready_s, turn_s=wait_turn_s)
        if len(effects) == 1 and type(placed := effects[0]) is Placed:
            return self._reserve(placed, request)
        turn: asyncio.Future[_Outcome] = self._loop.create_future()
        self._turns[ticket] = (request, turn)
        self._carry_out(effects)
        self._set_alarm()
        try:
            outcome = await asyncio.shield(turn)
        except asyncio.CancelledError:
            self._leave(ticket, turn)
            raise
        if isinstance(outcome, Rejected):
            raise _refusal(outcome)
        return outcome

    def at_once(self, request: RoutingRequest) -> Reservation | None:
        """A replica that has room for the request at this moment."""
        self._tickets = ticket = self._tickets + 1
        (effect,) = self._scheduler.ask_at_once(ticket, request, self._now())
        return self._reserve(effect, request) if isinstance(effect, Placed) else None

    def another_for(self, request: RoutingRequest, replica: ReplicaView) -> bool:
        """A replica could take the request that has not failed it and is not this one."""
        return self._scheduler.another_for(request, replica.base_url, self._now())

    def may_retry(self, request: RoutingRequest) -> bool:
        """Whether a request that failed may be sent once more; counts it if so."""
        return self._scheduler.may_retry(request, self._now())

    def report(self, base_url: str, *, good: bool) -> None:
        """What a request to the replica there said of its health."""
        effects = self._scheduler.report(base_url, self._now(), good=good)
        if effects:
            self._carry_out(effects)

    def done(self, ticket: int, reservation: Reservation) -> None:
        """What was reserved is free again."""
        self._load.give(reservation.replica.slot, reservation.cost_tokens)
        effects = self._scheduler.end(ticket, self._now())
        if effects:
            self._carry_out(effects)

    def moved(self, base_url: str) -> None:
        """The replica there has brought something."""
        slot = self._slots.get(base_url)
        if slot is not None:
            self._load.moved(slot)

    def leaves(self, replica: ReplicaView) -> None:
        """The replica has said that it is going down: it is asked only where there is no other."""
        self._carry_out(self._scheduler.leaves(replica.base_url, self._now()))

    def refuses(self, replica: ReplicaView) -> None:
        """It took no connection: the same, for a moment."""
        self._carry_out(self._scheduler.refuses(replica.base_url, self._now()))

    def fleet_changed(self, view: FleetView) -> None:
        """Tell of every replica that is not as it was."""
        now_s, before = self._now(), self._replicas
        self._replicas = {replica.slot: replica for replica in view.replicas if _has_a_place(replica)}
        self._slots = {each.base_url: slot for slot, each in self._replicas.items()}
        gone = [each for slot, each in before.items() if slot not in self._replicas]
        changed = [each for slot, each in self._replicas.items() if _differs(each, before.get(slot))]
        for replica in changed:
            if replica.slot not in before:
                self._scheduler.others_carry(replica.slot, *self._others.carry(replica.slot), now_s)
        self._carry_out(self._scheduler.fleet_changed(changed, gone, now_s))

    def tick(self) -> None:
        """Time has passed: others may have room now, and somebody's time may be over."""
        now_s = self._now()
        if now_s - self._read_all_s >= _READ_ALL_S:
            self._read_all_s = now_s
            for slot in self._replicas:
                self._scheduler.others_carry(slot, *self._others.carry(slot), now_s)
        self._hear_others(now_s)
        self._carry_out(self._scheduler.tick(now_s))

    def _hear_others(self, now_s: float) -> None:
        for slot, requests, tokens in self._others.news(self._replicas):
            self._scheduler.others_carry(slot, requests, tokens, now_s)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Placed():
                    request, turn = self._turns.pop(effect.ticket)
                    turn.set_result(self._reserve(effect, request))
                case Rejected():
                    self._turns.pop(effect.ticket)[1].set_result(effect)
                case Exhausted():
                    self._turns.pop(effect.ticket)[1].set_result(None)
                case Wake():
                    self._wake(effect.model)
                case LeftAlone():
                    log.warning(
                        "replica %s %s; it is left alone for a while", effect.replica.id, effect.reason
                    )

    def _reserve(self, placed: Placed, request: RoutingRequest) -> Reservation:
        self._load.take(placed.replica.slot, request.cost_tokens)
        if self._explains:
            log.debug("%s: least outstanding cost, %d tokens", placed.replica.id, placed.carried_tokens)
        return Reservation(self, placed, request.cost_tokens)

    def _leave(self, ticket: int, turn: "asyncio.Future[_Outcome]") -> None:
        """It waits no more; a replica that it was given at that moment goes back."""
        if turn.done():
            outcome = turn.result()
            if isinstance(outcome, Reservation):
                outcome.release()
            return
        del self._turns[ticket]
        turn.cancel()
        self._carry_out(self._scheduler.end(ticket, self._now()))

    def _set_alarm(self) -> None:
        """Be told when the next of those that wait has waited long enough."""
        due_s = self._scheduler.next_alarm_s
        if due_s is None or (self._alarm is not None and self._alarm_s <= due_s):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s, self._alarm = due_s, self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.tick()
        self._set_alarm()


def _refusal(rejected: Rejected) -> Refusal:
    return Refusal(
        rejected.status,
        rejected.code,
        rejected.message,
        type=RefusalType.OVERLOADED,
        retry_after_s=rejected.retry_after_s,
    )


def _differs(replica: ReplicaView, known: ReplicaView | None) -> bool:
    """What no change has touched is the very same value, which says so sooner."""
    return replica is not known and replica != known


def _has_a_place(replica: ReplicaView) -> bool:
    try:
        check_slot(replica.slot)
    except NoSuchSlot as problem:
        log.warning("replica %s is sent nothing: %s", replica.id, problem)
        return False
    return True
