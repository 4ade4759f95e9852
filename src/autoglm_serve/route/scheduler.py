"""Which request goes where, and when: one gateway worker's decisions, apart from every socket. Pure.

Events go in with the time at which they happen, effects come out; whoever runs this carries them out. It owns
the queue with its turns, bounds and deadlines, what each replica carries, the breakers and the retry budgets.
It knows no loop, no shared memory and nothing of how a request is sent.

Laws, which the tests hold: every request that was asked for gets exactly one of `Placed`, `Rejected` and
`Exhausted`, unless it ends before; what it costs is counted from `Placed` to `end` and then gone; no client
is served twice while another waits; a replica is never given more than it holds, unless it was idle or the
request was begun on; and nobody who could be asked has less to do than who is.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from autoglm_serve.core.fleet import ModelView, ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.route.fair_queue import FairQueue
from autoglm_serve.route.load_order import Entry, LoadOrder, Verdict
from autoglm_serve.route.places import Places
from autoglm_serve.route.retry_budget import OPINIONS, OPINIONS_PER_S, RetryBudgets
from autoglm_serve.route.work_rate import WorkRate

MAY_BECOME_READY = frozenset(
    {ReplicaState.STARTING, ReplicaState.WAITING, ReplicaState.STOPPING, ReplicaState.DRAINING}
)
COLD_START_S = 30.0
"""A model on demand is waited for at least this long: its first request has to load it."""
WAKE_EVERY_S = 1.0
"""A model that is waited for and sleeps is called so often: the call may have been lost."""
AGAIN_S, AGAIN_MOST_S = 0.5, 2.0
"""An address that lost a request may be asked again after so long, twice as long each time. By then the
control plane has said so if a process of ours is gone."""
ANSWERS_THAT_TELL = 2
"""Engines that have answered a request with an error, after which no other is asked: it is the request."""
LEAVING_S = 10.0
"""From a replica's word that it is going down to its end, or to a successor at the same address."""
REFUSING_S = 2.0
"""A refused connection counts so long: one more costs nobody anything, and an address may be back at once."""
WORTH_KEEPING_TOKENS = 1024
"""A request of this cost begins mostly as its client's last one did (a phone agent's steps: system prompt,
task, history). Among replicas with equally much to do it goes where that one went, whose engine still holds
the beginning; smaller ones go in turn."""
_MOST_KEPT = 4096
_STALE_ALARMS = 256
_TOLD = 8


# --- what is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """How an address has failed a request."""

    losses: int = 0
    """Connections to it that broke."""
    again_s: float | None = None
    """When it may be asked again, if nobody else can be; None: never."""
    answered: bool = False
    """It is well and says no: another that is ready may be asked, but none is waited for."""


_NOTHING: Mapping[str, Setback] = MappingProxyType({})


class RoutingRequest(NamedTuple):
    """What wants a replica, and what it has met so far. Made for every request, as is `Placed`: a frozen
    dataclass takes three times as long."""

    model: ModelView
    cost_tokens: int
    client: str
    """Whose turn it takes in the queue."""
    holder: str
    """Who is held to account for the client: has its places, and pays for its retries."""
    most_waiting: int | None = None
    """Requests that its holder may have waiting; None: as many as there is room for."""
    size_bytes: int = 0
    """Of the body that is kept while it waits."""
    tried: Mapping[str, Setback] = _NOTHING
    """By the addresses that have failed it."""
    begun: bool = False
    """A stream that the client has part of: it may go beyond a replica's capacity."""

    @property
    def urgent(self) -> bool:
        """It had its turn already: it goes first, and where it cannot go others still may."""
        return self.begun or bool(self.tried)

    @property
    def losses(self) -> int:
        """How often it was lost so far."""
        return sum(each.losses for each in self.tried.values())

    @property
    def answers(self) -> int:
        """Engines that have answered it with an error."""
        return len(self.answered_by)

    @property
    def answered_by(self) -> list[str]:
        """Where they are."""
        return [address for address, each in self.tried.items() if each.answered]

    def refused_by(self, address: str, *, answered: bool = False) -> "RoutingRequest":
        """An engine has said that it cannot, not now or, where it `answered`, not this."""
        return self._replace(tried={**self.tried, address: Setback(answered=answered)})

    def lost_by(self, address: str, now_s: float) -> "RoutingRequest":
        """The connection broke, could not be made, or was given up."""
        losses = self.tried.get(address, Setback()).losses + 1
        again_s = now_s + min(AGAIN_S * 2.0 ** (losses - 1), AGAIN_MOST_S)
        return self._replace(tried={**self.tried, address: Setback(losses=losses, again_s=again_s)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may wait in one worker."""

    waiting: int
    """Requests, for each model."""
    waiting_bytes: int
    """Of the bodies of all that wait; one alone may be larger."""


# --- what comes of it


class Placed(NamedTuple):
    """The request goes to this replica, and is counted there until its end."""

    ticket: int
    replica: ReplicaView
    carried_tokens: int
    """What the replica has outstanding, this request among it; nobody who could be asked had less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Nothing here can serve the request now: what is answered, as HTTP."""

    ticket: int
    status: int
    code: str
    message: str
    retry_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhausted:
    """Every replica that could be asked has failed the request: what they said is the answer."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A model on demand is waited for."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A replica is not asked for a while, unless there is no other."""

    replica: ReplicaView
    reason: str
    """What it did."""


Effect = Placed | Rejected | Exhausted | Wake | LeftAlone


# --- how


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    ticket: int
    request: RoutingRequest
    deadline_s: float


class _Line:
    """One model: its replicas in order, and who waits for them."""

    __slots__ = ("first", "hopeful", "kept", "order", "places", "queue", "sleeping", "tokens", "woken_s")

    def __init__(self, bounds: Bounds) -> None:
        self.order = LoadOrder()
        self.queue: FairQueue[_Waiter] = FairQueue()
        self.places = Places(bounds.waiting)
        self.first: dict[int, _Waiter] = {}
        """The urgent ones, by ticket."""
        self.tokens = 0
        """What those in the queue cost together."""
        self.hopeful = 0
        """Replicas that may become ready."""
        self.sleeping = 0
        """Replicas that are stopped."""
        self.woken_s: float | None = None
        self.kept: dict[str, int] = {}
        """The slot where each client's last large request went, the latest last."""

    def keep(self, client: str, slot: int) -> None:
        """The engine there holds what the client's next request begins with."""
        if self.kept.pop(client, None) is None and len(self.kept) >= _MOST_KEPT:
            del self.kept[next(iter(self.kept))]
        self.kept[client] = slot

    def as_before(self, request: RoutingRequest, chosen: Entry) -> Entry:
        """The one that holds the beginning, if it has no more to do than the one that was chosen."""
        slot = self.kept.get(request.client)
        before = self.order.entries.get(slot) if slot is not None else None
        if before is None or before.shelf is not chosen.shelf or before.cost_tokens != chosen.cost_tokens:
            return chosen
        return before if before.has_room(request.cost_tokens) else chosen

    def count(self, state: ReplicaState, by: int) -> None:
        self.hopeful += by * (state in MAY_BECOME_READY)
        self.sleeping += by * (state is ReplicaState.STOPPED)


class _SlotLoad:
    """What one slot carries for this worker and for the others. It outlives the replica that has the slot."""

    __slots__ = ("own_requests", "own_tokens", "requests", "tokens")

    def __init__(self) -> None:
        self.own_requests = self.own_tokens = 0
        self.requests = self.tokens = 0
        """With those of the other workers."""


class Scheduler:
    """Finds a replica for each request, in turn. Every event has the time at which it happens."""

    def __init__(self, bounds: Bounds, now_s: float) -> None:
        self._bounds = bounds
        self._lines: dict[str, _Line] = {}
        """By model: one that is still loading holds up nobody else."""
        self._lines_at: dict[int, _Line] = {}
        """By slot."""
        self._loads: dict[int, _SlotLoad] = {}
        self._failing: set[str] = set()
        """Addresses that have failed and not succeeded since."""
        self._waiters: dict[int, _Waiter] = {}
        self._running: dict[int, tuple[int, RoutingRequest]] = {}
        """What was placed and has not ended: slot and request, by ticket."""
        self._alarms: list[tuple[float, int]] = []
        """When to look at which waiter; that of one who waits no more is passed over."""
        self._waiting_bytes = Places(bounds.waiting_bytes)
        self._rate = WorkRate(now_s)
        self._retries = RetryBudgets()
        self._opinions = RetryBudgets(OPINIONS, OPINIONS_PER_S)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def next_alarm_s(self) -> float | None:
        """When `tick` is due at the latest."""
        return self._alarms[0][0] if self._alarms else None

    def load(self, slot: int) -> tuple[int, int]:
        """The requests and the tokens that a slot carries, over all workers."""
        load = self._loads.get(slot)
        return (load.requests, load.tokens) if load is not None else (0, 0)

    # --- events of requests

    def ask(
        self, ticket: int, request: RoutingRequest, now_s: float, *, ready_s: float, turn_s: float
    ) -> list[Effect]:
        """A request wants a replica: it waits `ready_s` for one to be there, `turn_s` for one to have room.

        `ticket` is the caller's name for it, until its `end`.
        """
        line = self._line(request.model.name)
        effects: list[Effect] = []
        if request.tried and request.answers >= ANSWERS_THAT_TELL:
            return [Exhausted(ticket=ticket)]
        if request.urgent or not len(line.queue):
            verdict, entry = self._choose(line, request, now_s)
            if entry is not None:
                return [self._place(ticket, request, line, entry, now_s)]
            if verdict is Verdict.NONE and not self._worth_waiting(line, request):
                return [self._none_for(ticket, request, line)]
        else:
            verdict = Verdict.BUSY if line.order.ready else Verdict.NONE
        if not request.urgent:
            leaving = self._room_for(line, request)
            if leaving is None:
                return [self._overloaded(ticket, line, "queue_full", 429, "The queue is full", now_s)]
            effects += [self._give_way(each, now_s) for each in leaving]
        if request.model.on_demand:
            ready_s = max(ready_s, COLD_START_S)
            self._call(line, request.model, effects, now_s)
        self._wait(ticket, request, line, now_s + (turn_s if verdict is Verdict.BUSY else ready_s))
        return effects

    def ask_at_once(self, ticket: int, request: RoutingRequest, now_s: float) -> list[Effect]:
        """The same for a request that does not wait."""
        line = self._line(request.model.name)
        _, entry = line.order.choose(request.cost_tokens, now_s, passed=request.tried, beyond=request.begun)
        return [
            Exhausted(ticket=ticket) if entry is None else self._place(ticket, request, line, entry, now_s)
        ]

    def end(self, ticket: int, now_s: float) -> list[Effect]:
        """The request is over, wherever it was: it waits no more, and its replica is done with it."""
        waiter = self._waiters.get(ticket)
        if waiter is not None:
            self._unqueue(waiter)
            return []
        running = self._running.pop(ticket, None)
        if running is None:
            return []
        slot, request = running
        load, cost = self._loads[slot], request.cost_tokens
        load.own_requests -= 1
        load.own_tokens -= cost
        load.requests -= 1
        load.tokens -= cost
        self._rate.add(cost, now_s)
        line = self._lines_at.get(slot)
        if line is None:
            return []
        line.order.carry(line.order.entries[slot], load.requests, load.tokens, now_s)
        return self._pump(line, now_s) if self._anybody_on(line) else []

    def report(self, address: str, now_s: float, *, good: bool) -> list[Effect]:
        """What a request to the address said of its health."""
        effects: list[Effect] = []
        if good and address not in self._failing:
            return effects
        (self._failing.discard if good else self._failing.add)(address)
        for line in self._lines.values():
            entry = line.order.at(address)
            if entry is None:
                continue
            before = entry.breaker
            after = before.succeeded() if good else before.failed(now_s)
            if after is not before:
                line.order.judge(entry, after, now_s)
            if after.opened and not before.opened:
                effects.append(LeftAlone(replica=entry.replica, reason="has failed repeatedly"))
        return effects

    def leaves(self, address: str, now_s: float) -> list[Effect]:
        """The replica there has said that it is going down."""
        return self._leave_alone(address, now_s, LEAVING_S, "says that it is going down")

    def refuses(self, address: str, now_s: float) -> list[Effect]:
        """Nobody listens there: a process that was told to end, and has closed its door first."""
        return self._leave_alone(address, now_s, REFUSING_S, "takes no connections")

    def _leave_alone(self, address: str, now_s: float, for_s: float, reason: str) -> list[Effect]:
        effects: list[Effect] = []
        for line in self._lines.values():
            entry = line.order.at(address)
            if entry is None:
                continue
            if now_s >= entry.away_until_s:
                effects.append(LeftAlone(replica=entry.replica, reason=reason))
            line.order.leaves(entry, now_s + for_s, now_s)
        return effects

    def may_retry(self, request: RoutingRequest, now_s: float) -> bool:
        """Whether a request that failed may be sent once more; counts it if so."""
        budgets = self._opinions if request.answers else self._retries
        return budgets.spend(request.holder, now_s)

    def another_for(self, request: RoutingRequest, address: str, now_s: float) -> bool:
        """A replica other than this one could be asked: it is ready, not left alone, and has not failed the
        request, or not just now."""
        line = self._lines.get(request.model.name)
        return line is not None and line.order.trusted_other_than({*_still_out(request, now_s), address})

    # --- events of the fleet

    def fleet_changed(
        self, changed: Iterable[ReplicaView], gone: Iterable[ReplicaView], now_s: float
    ) -> list[Effect]:
        """Replicas that are new or not as they were, and those that are no more."""
        touched: dict[_Line, None] = {}
        for replica in gone:
            touched[self._take_out(replica.slot)] = None
        for replica in changed:
            before = self._lines_at.get(replica.slot)
            if before is not None:
                touched[before] = None
            touched[self._take_in(replica, now_s)] = None
        return [effect for line in touched for effect in self._pump(line, now_s)]

    def others_carry(self, slot: int, requests: int, tokens: int, now_s: float) -> None:
        """What the other workers have on a slot. `tick` sees to who may go on by it."""
        load = self._load(slot)
        load.requests, load.tokens = load.own_requests + requests, load.own_tokens + tokens
        self._carries(slot, load, now_s)

    def tick(self, now_s: float) -> list[Effect]:
        """Time has passed, or others have room: see whose time is over, and who can go on."""
        effects: list[Effect] = []
        while self._alarms and self._alarms[0][0] <= now_s:
            waiter = self._waiters.get(heapq.heappop(self._alarms)[1])
            if waiter is not None and waiter.deadline_s <= now_s:
                effects.append(self._expire(waiter, now_s))
        for line in self._lines.values():
            if self._anybody_on(line):
                effects += self._pump(line, now_s)
        return effects

    # --- how a request is placed

    def _choose(self, line: _Line, request: RoutingRequest, now_s: float) -> tuple[Verdict, Entry | None]:
        """One that has not failed the request; or one that may be asked again, where nobody else can be."""
        order, cost, beyond = line.order, request.cost_tokens, request.begun
        if not request.tried:
            verdict, entry = order.choose(cost, now_s, beyond=beyond)
            if entry is not None and cost >= WORTH_KEEPING_TOKENS:
                entry = line.as_before(request, entry)
            return verdict, entry
        verdict, entry = order.choose(cost, now_s, passed=request.tried, beyond=beyond)
        if verdict is not Verdict.NONE:
            return verdict, entry
        return order.choose(cost, now_s, passed=_still_out(request, now_s), beyond=beyond)

    def _place(self, ticket: int, request: RoutingRequest, line: _Line, entry: Entry, now_s: float) -> Placed:
        slot = entry.replica.slot
        load = self._load(slot)
        load.own_requests += 1
        load.own_tokens += request.cost_tokens
        load.requests += 1
        load.tokens += request.cost_tokens
        line.order.chosen(entry, load.requests, load.tokens, now_s)
        if request.cost_tokens >= WORTH_KEEPING_TOKENS:
            line.keep(request.client, slot)
        if not request.tried:
            self._retries.asked(request.holder)
            self._opinions.asked(request.holder)
        self._running[ticket] = (slot, request)
        return Placed(ticket=ticket, replica=entry.replica, carried_tokens=load.tokens)

    def _worth_waiting(self, line: _Line, request: RoutingRequest) -> bool:
        """A replica may become ready, or be asked again."""
        if request.answers:
            return False
        if line.hopeful or (request.model.on_demand and line.sleeping):
            return True
        again = (line.order.at(url) for url, each in request.tried.items() if each.again_s is not None)
        return any(entry is not None and entry.replica.routable for entry in again)

    def _none_for(self, ticket: int, request: RoutingRequest, line: _Line) -> Exhausted | Rejected:
        """If replicas have failed the request, they have the word; if there was none to ask, it is said."""
        if request.tried:
            return Exhausted(ticket=ticket)
        replicas = [entry.replica for _, entry in sorted(line.order.entries.items())]
        return Rejected(
            ticket=ticket,
            status=503,
            code="no_replica_ready",
            message=f"No replica of '{request.model.name}' is ready ({states(replicas)}).",
            retry_after_s=2 if line.hopeful else 30,
        )

    # --- how requests wait

    def _wait(self, ticket: int, request: RoutingRequest, line: _Line, deadline_s: float) -> None:
        waiter = _Waiter(ticket=ticket, request=request, deadline_s=deadline_s)
        self._waiters[ticket] = waiter
        if len(self._alarms) > _STALE_ALARMS + 4 * len(self._waiters):
            self._alarms = [alarm for alarm in self._alarms if alarm[1] in self._waiters]
            heapq.heapify(self._alarms)
        heapq.heappush(self._alarms, (deadline_s, ticket))
        for setback in request.tried.values():
            if setback.again_s is not None:
                heapq.heappush(self._alarms, (setback.again_s, ticket))
        if request.urgent:
            line.first[ticket] = waiter
        else:
            line.queue.push(request.holder, request.client, waiter)
            line.tokens += request.cost_tokens
            line.places.take(request.holder, request.client, ticket, 1)
            self._waiting_bytes.take(request.holder, request.client, ticket, request.size_bytes)

    def _pump(self, line: _Line, now_s: float) -> list[Effect]:
        """Place who waits, in turn, until somebody has to wait on."""
        effects: list[Effect] = []
        for urgent in tuple(line.first.values()):
            effect = self._settled(urgent, line, now_s)
            if effect is not None:
                self._unqueue(urgent)
                effects.append(effect)
        while next_one := line.queue.peek():
            effect = self._settled(next_one, line, now_s)
            if effect is None:
                break
            self._forget(next_one, line)
            line.queue.pop()
            effects.append(effect)
        waiter = line.queue.peek() or next(iter(line.first.values()), None)
        if waiter is not None and waiter.request.model.on_demand:
            self._call(line, waiter.request.model, effects, now_s)
        return effects

    def _settled(self, waiter: _Waiter, line: _Line, now_s: float) -> Effect | None:
        """What becomes of a waiter, if that is certain now."""
        request = waiter.request
        verdict, entry = self._choose(line, request, now_s)
        if entry is not None:
            return self._place(waiter.ticket, request, line, entry, now_s)
        if verdict is Verdict.BUSY or self._worth_waiting(line, request):
            return None
        return self._none_for(waiter.ticket, request, line)

    def _expire(self, waiter: _Waiter, now_s: float) -> Effect:
        """It has waited as long as it may."""
        request = waiter.request
        line = self._line(request.model.name)
        effect = self._settled(waiter, line, now_s)
        if effect is None and self._choose(line, request, now_s)[0] is Verdict.BUSY:
            what = "The request waited too long"
            effect = self._overloaded(waiter.ticket, line, "queue_timeout", 503, what, now_s)
        self._unqueue(waiter)
        return effect or self._none_for(waiter.ticket, request, line)

    def _unqueue(self, waiter: _Waiter) -> None:
        """It waits no more, whether or not it was its turn."""
        request = waiter.request
        line = self._line(request.model.name)
        self._forget(waiter, line)
        if request.urgent:
            del line.first[waiter.ticket]
        else:
            line.queue.remove(request.holder, request.client, waiter)

    def _forget(self, waiter: _Waiter, line: _Line) -> None:
        del self._waiters[waiter.ticket]
        request = waiter.request
        if not request.urgent:
            line.tokens -= request.cost_tokens
            line.places.give(request.holder, request.client, waiter.ticket)
            self._waiting_bytes.give(request.holder, request.client, waiter.ticket)

    def _room_for(self, line: _Line, request: RoutingRequest) -> list[_Waiter] | None:
        """Who has to leave before it may wait, mostly nobody; None: it may not. Bounded by count, and by the
        bytes that are kept."""
        who = request.holder, request.client
        if request.most_waiting is not None and line.places.of(request.holder) >= request.most_waiting:
            return None
        places = line.places.room_for(*who, 1)
        kept = self._waiting_bytes.room_for(*who, request.size_bytes)
        if places is None or kept is None:
            return None
        return [self._waiters[ticket] for ticket in dict.fromkeys((*places, *kept))]

    def _give_way(self, waiter: _Waiter, now_s: float) -> Rejected:
        """It leaves the queue for another that has less in it."""
        line = self._line(waiter.request.model.name)
        self._unqueue(waiter)
        what = "The queue is full, and others who have less in it came"
        return self._overloaded(waiter.ticket, line, "queue_full", 429, what, now_s)

    def _overloaded(
        self, ticket: int, line: _Line, code: str, status: int, what: str, now_s: float
    ) -> Rejected:
        wait_s = self._rate.seconds_for(line.tokens, now_s)
        message = f"{what}: {len(line.queue)} requests wait here, about {wait_s} s of work. Try again later."
        return Rejected(ticket=ticket, status=status, code=code, message=message, retry_after_s=wait_s)

    def _call(self, line: _Line, model: ModelView, effects: list[Effect], now_s: float) -> None:
        """Ask for a model that is waited for and may sleep, now and then."""
        if line.order.ready or (line.woken_s is not None and now_s - line.woken_s < WAKE_EVERY_S):
            return
        line.woken_s = now_s
        effects.append(Wake(model=model.name))

    def _anybody_on(self, line: _Line) -> bool:
        return bool(line.first) or bool(len(line.queue))

    # --- how replicas come and go

    def _take_in(self, replica: ReplicaView, now_s: float) -> _Line:
        before, line = self._lines_at.get(replica.slot), self._line(replica.model)
        if before is line:
            known = line.order.entries[replica.slot].replica
            line.count(known.state, -1)
            if known.base_url != replica.base_url:
                self._failing.discard(known.base_url)
        elif before is not None:
            self._take_out(replica.slot)
        if replica.state is ReplicaState.STOPPED:
            line.woken_s = None  # whoever called it called one that was awake
        load = self._load(replica.slot)
        line.order.put(replica, requests=load.requests, cost_tokens=load.tokens, now_s=now_s)
        line.count(replica.state, +1)
        self._lines_at[replica.slot] = line
        return line

    def _take_out(self, slot: int) -> _Line:
        line = self._lines_at.pop(slot)
        replica = line.order.entries[slot].replica
        self._failing.discard(replica.base_url)
        line.count(replica.state, -1)
        line.order.drop(slot)
        return line

    def _carries(self, slot: int, load: _SlotLoad, now_s: float) -> None:
        line = self._lines_at.get(slot)
        if line is not None:
            line.order.carry(line.order.entries[slot], load.requests, load.tokens, now_s)

    def _load(self, slot: int) -> _SlotLoad:
        load = self._loads.get(slot)
        if load is None:
            load = self._loads[slot] = _SlotLoad()
        return load

    def _line(self, model: str) -> _Line:
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = _Line(self._bounds)
        return line


def _still_out(request: RoutingRequest, now_s: float) -> list[str]:
    """The addresses that may not be asked again yet, or never."""
    return [url for url, each in request.tried.items() if each.again_s is None or now_s < each.again_s]


def states(replicas: Iterable[ReplicaView]) -> str:
    """The state of each replica, for a person; the first few where they are many."""
    every = [f"{replica.id} {replica.state}" for replica in replicas]
    told = ", ".join(every[:_TOLD]) or "no replica"
    return f"{told} and {len(every) - _TOLD} more" if len(every) > _TOLD else told
