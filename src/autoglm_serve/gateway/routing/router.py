"""Where requests wait and where they go: the routing state of one worker.

Owns the queue, the breakers and the worker's share of the load table. The choice itself is pure
(`route.least_cost`); here it meets the fleet as it changes and the requests that wait for it.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.routing.fleet_holder import FleetHolder
from autoglm_serve.gateway.routing.load import Burden, LoadTable
from autoglm_serve.route.breaker import CLOSED, Breaker
from autoglm_serve.route.fair_queue import FairQueue
from autoglm_serve.route.least_cost import Candidate, Choice, Verdict, choose
from autoglm_serve.route.retry_budget import RetryBudget

log = logging.getLogger(__name__)

_MAY_BECOME_READY = frozenset(
    {ReplicaState.STARTING, ReplicaState.WAITING, ReplicaState.STOPPING, ReplicaState.DRAINING}
)
_COLD_START_S = 30.0
"""A model on demand is waited for at least this long: its first request has to load it."""
_RATE_WINDOW_S = 10.0
_LEAVING_S = 10.0
"""From the word to the end, or to a successor at the same address."""


@dataclass(slots=True, kw_only=True, eq=False)
class Wish:
    """A request that wants a replica."""

    model: ModelView
    cost_tokens: int
    client: str
    """Whose turn it takes in the queue."""
    size_bytes: int = 0
    """Of the body that is kept while it waits."""
    tried: set[str] = field(default_factory=set)
    """Addresses of replicas that have failed it."""
    lost: set[str] = field(default_factory=set)
    """Those of them whose connection broke: a successor may be on its way."""
    begun: bool = False
    """A stream that the client has part of: it may go beyond a replica's capacity."""

    @property
    def urgent(self) -> bool:
        """It had its turn already: it goes first, and where it cannot go others still may."""
        return self.begun or bool(self.tried)


@dataclass(slots=True, kw_only=True)
class Placement:
    """A replica that carries a request until the `with` block ends."""

    replica: ReplicaView
    reason: str
    burden: Burden
    router: "Router"

    def __enter__(self) -> "Placement":
        return self

    def __exit__(self, *_: object) -> None:
        self.router.release(self)


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    wish: Wish
    placed: "asyncio.Future[Placement | None]"


class Router:
    """Finds a replica for each wish, in turn."""

    def __init__(
        self,
        fleet: FleetHolder,
        load: LoadTable,
        loop: asyncio.AbstractEventLoop,
        *,
        workers: int,
        max_waiting: int,
        max_waiting_bytes: int,
        wake: Callable[[str], None],
    ) -> None:
        self._fleet = fleet
        self._load = load
        self._loop = loop
        self._workers = workers
        self._wake = wake
        self._spin = 0
        self._breakers: dict[str, Breaker] = {}
        self._leaving: dict[str, float] = {}
        """Addresses that have said that they are going down, and until when that counts."""
        self._max_waiting = max_waiting
        self._queues: dict[str, FairQueue[_Waiter]] = {}
        """By model: one that is still loading holds up nobody else."""
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting_bytes = 0
        self._first: list[_Waiter] = []
        """The urgent ones."""
        self._rate = _Rate(loop.time())
        self._retries = RetryBudget(at_s=loop.time())

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values())) + len(self._first)

    async def place(self, wish: Wish, *, wait_ready_s: float, wait_turn_s: float) -> Placement | None:
        """A replica for the wish; None if those that could be tried have been.

        Raises Refusal if none is ready within `wait_ready_s` or has room within `wait_turn_s`.
        """
        if wish.model.on_demand:
            self._wake(wish.model.name)
            wait_ready_s = max(wait_ready_s, _COLD_START_S)
        if wish.urgent or not self._queue(wish):
            choice = self._choose(wish)
            if choice.replica is not None:
                return self._take(wish, choice)
            if not self._worth_waiting(wish, choice):
                return self._none_for(wish)
        if not wish.urgent and self._full_for(wish):
            raise self._overloaded(wish, "queue_full", 429, "The queue is full")
        busy = self._choose(wish).verdict is Verdict.BUSY
        try:
            async with asyncio.timeout(wait_turn_s if busy else wait_ready_s):
                return await self._turn(wish) or self._none_for(wish)
        except TimeoutError:
            if self._choose(wish).verdict is Verdict.BUSY:
                raise self._overloaded(wish, "queue_timeout", 503, "The request waited too long") from None
            return self._none_for(wish)

    def at_once(self, wish: Wish) -> Placement | None:
        """A replica that has room for the wish at this moment."""
        choice = self._choose(wish)
        return self._take(wish, choice) if choice.replica is not None else None

    def others(self, wish: Wish, replica: ReplicaView) -> bool:
        """A replica is ready that has not failed the wish and is not this one."""
        passed = wish.tried | {replica.base_url}
        return any(each.routable and each.base_url not in passed for each in self._replicas(wish.model))

    def may_retry(self) -> bool:
        """Whether a request that failed may be sent once more; counts it if so."""
        left = self._retries.spend(self._loop.time())
        self._retries = left or self._retries
        return left is not None

    def release(self, placement: Placement) -> None:
        """The replica is done with the request."""
        placement.burden.put_down()
        self._rate.add(placement.burden.cost_tokens, self._loop.time())
        self.pump()

    def report(self, replica: ReplicaView, *, good: bool) -> None:
        """What a request to the replica said of its health."""
        before = self._breakers.get(replica.base_url, CLOSED)
        after = before.succeeded() if good else before.failed(self._loop.time())
        if after.opened and not before.opened:
            log.warning("replica %s has failed repeatedly; it is left alone for a moment", replica.id)
        if after is CLOSED:
            self._breakers.pop(replica.base_url, None)
        else:
            self._breakers[replica.base_url] = after

    def leaves(self, replica: ReplicaView) -> None:
        """The replica has said that it is going down: it is asked only where there is no other."""
        if replica.base_url not in self._leaving:
            log.warning("replica %s says that it is going down; it is not asked for a while", replica.id)
        self._leaving[replica.base_url] = self._loop.time() + _LEAVING_S

    def fleet_changed(self, view: FleetView) -> None:
        """Forget the breakers of processes that are gone, and see who can go on."""
        addresses = {replica.base_url for replica in view.replicas}
        self._leaving = {url: until_s for url, until_s in self._leaving.items() if url in addresses}
        self._breakers = {url: breaker for url, breaker in self._breakers.items() if url in addresses}
        self.pump()

    def pump(self) -> None:
        """Place what waits, in turn, until somebody has to wait on."""
        self._first = [waiter for waiter in self._first if not self._settled(waiter)]
        for queue in self._queues.values():
            while (waiter := queue.peek()) and self._settled(waiter):
                self._waiting_bytes -= queue.pop().wish.size_bytes

    async def _turn(self, wish: Wish) -> Placement | None:
        """Wait for a replica; None once waiting is of no use."""
        waiter = _Waiter(wish=wish, placed=self._loop.create_future())
        if wish.urgent:
            self._first.append(waiter)
        else:
            self._queue(wish).push(wish.client, waiter)
            self._waiting_bytes += wish.size_bytes
        try:
            return await asyncio.shield(waiter.placed)
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        """It waits no more; a replica that it was given at that moment goes back."""
        if waiter.placed.done():
            placement = waiter.placed.result()
            if placement is not None:
                self.release(placement)
            return
        waiter.placed.cancel()
        self._first = [other for other in self._first if other is not waiter]
        if self._queue(waiter.wish).remove(waiter.wish.client, waiter):
            self._waiting_bytes -= waiter.wish.size_bytes

    def _full_for(self, wish: Wish) -> bool:
        """Bounded by count, and by the bytes that are kept; one alone may be larger than that."""
        too_much = self._waiting_bytes + wish.size_bytes > self._max_waiting_bytes
        return self._queue(wish).full or (too_much and bool(self._waiting_bytes))

    def _queue(self, wish: Wish) -> FairQueue[_Waiter]:
        return self._queues.setdefault(wish.model.name, FairQueue(self._max_waiting))

    def _settled(self, waiter: _Waiter) -> bool:
        """Give a waiter its replica, or nothing, if either is certain now."""
        choice = self._choose(waiter.wish)
        if choice.replica is not None:
            waiter.placed.set_result(self._take(waiter.wish, choice))
        elif not self._worth_waiting(waiter.wish, choice):
            waiter.placed.set_result(None)
        elif waiter.wish.model.on_demand:  # it may have gone to rest just as this request came
            self._wake(waiter.wish.model.name)
        return waiter.placed.done()

    def _choose(self, wish: Wish) -> Choice:
        self._spin += 1
        candidates = [self._candidate(replica, wish) for replica in self._replicas(wish.model)]
        return choose(candidates, cost_tokens=wish.cost_tokens, tried=wish.tried, spin=self._spin)

    def _candidate(self, replica: ReplicaView, wish: Wish) -> Candidate:
        breaker = self._breakers.get(replica.base_url)
        return Candidate(
            replica=replica,
            cost_tokens=self._load.cost_tokens(replica.slot, self._workers),
            requests=0 if wish.begun else self._load.requests(replica.slot, self._workers),
            usable=(breaker is None or breaker.allows(self._loop.time())) and not self._is_leaving(replica),
        )

    def _is_leaving(self, replica: ReplicaView) -> bool:
        until_s = self._leaving.get(replica.base_url) if self._leaving else None
        if until_s is not None and self._loop.time() >= until_s:
            del self._leaving[replica.base_url]
            return False
        return until_s is not None

    def _take(self, wish: Wish, choice: Choice) -> Placement:
        assert choice.replica is not None
        replica = choice.replica
        breaker = self._breakers.get(replica.base_url)
        if breaker is not None:
            self._breakers[replica.base_url] = breaker.probing(self._loop.time())
        if not wish.tried:
            self._retries = self._retries.asked()
        burden = self._load.take(replica.slot, wish.cost_tokens)
        return Placement(replica=replica, reason=choice.reason, burden=burden, router=self)

    def _replicas(self, model: ModelView) -> tuple[ReplicaView, ...]:
        return self._fleet.view.replicas_of(model)

    def _worth_waiting(self, wish: Wish, choice: Choice) -> bool:
        """A replica may get room, become ready, or follow one that was lost."""
        if choice.verdict is Verdict.BUSY:
            return True
        hopeful = _MAY_BECOME_READY | ({ReplicaState.STOPPED} if wish.model.on_demand else set())
        return any(
            replica.state in hopeful or (replica.base_url in wish.lost and not wish.model.on_demand)
            for replica in self._replicas(wish.model)
        )

    def _none_for(self, wish: Wish) -> Placement | None:
        """None if replicas have failed the wish; if there was none to ask, the refusal that says so."""
        if wish.tried:
            return None
        replicas = self._replicas(wish.model)
        told = ", ".join(f"{replica.id} {replica.state}" for replica in replicas) or "no replica"
        hopeful = any(replica.state in _MAY_BECOME_READY for replica in replicas)
        raise Refusal(
            503,
            "no_replica_ready",
            f"No replica of '{wish.model.name}' is ready ({told}).",
            type=RefusalType.OVERLOADED,
            retry_after_s=2 if hopeful else 30,
        )

    def _overloaded(self, wish: Wish, code: str, status: int, what: str) -> Refusal:
        queue = self._queue(wish)
        ahead = sum(waiter.wish.cost_tokens for waiter in queue)
        wait_s = self._rate.seconds_for(ahead, self._loop.time())
        message = f"{what}: {len(queue)} requests wait here, about {wait_s} s of work. Try again later."
        return Refusal(status, code, message, type=RefusalType.OVERLOADED, retry_after_s=wait_s)


class _Rate:
    """How fast work is done: tokens of finished requests, recent ones counting most."""

    def __init__(self, now_s: float) -> None:
        self._tokens = 0.0
        self._at_s = now_s

    def add(self, tokens: int, now_s: float) -> None:
        self._tokens = self._faded(now_s) + tokens
        self._at_s = now_s

    def seconds_for(self, tokens: int, now_s: float) -> int:
        """How long so much work takes at this rate, between 1 and 60 s."""
        rate = self._faded(now_s) / _RATE_WINDOW_S
        return max(1, min(60, math.ceil(tokens / rate))) if rate > 0 else 5

    def _faded(self, now_s: float) -> float:
        return self._tokens * math.exp((self._at_s - now_s) / _RATE_WINDOW_S)
