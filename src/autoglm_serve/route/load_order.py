"""One model's ready replicas, the one with least outstanding cost first. Pure.

A screenshot costs thousands of tokens and a question dozens, so counting requests would call two very
different loads equal: the unit is tokens (`gateway.admission.cost`). Among equals the one that was given a
request longest ago comes first, so that an idle fleet is used in turn.

The order is kept, not made anew for every request: a change moves one replica, and a choice looks at the
first few. Replicas lie on three shelves: those with room, those at their capacity, and those that a breaker
is open for or that said that they are going down, which are asked only where there is no other: a doubtful
answer is better than none.
"""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Collection
from enum import Enum

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.route.breaker import CLOSED, Breaker

_Key = tuple[int, int, int]
"""Outstanding cost, the turn in which it was last chosen, slot."""
_Shelf = list[_Key]


class Verdict(Enum):
    """What became of the search for a replica."""

    FOUND = "found"
    BUSY = "busy"  # every replica that could serve is at its capacity: wait for one
    NONE = "none"  # no replica could serve


class Entry:
    """A replica and what it carries, over all gateway workers."""

    __slots__ = ("away_until_s", "breaker", "cost_tokens", "key", "replica", "requests", "shelf", "turn")

    def __init__(self, replica: ReplicaView, requests: int = 0, cost_tokens: int = 0) -> None:
        self.replica = replica
        self.requests = requests
        self.cost_tokens = cost_tokens
        self.breaker = CLOSED
        self.away_until_s = 0.0
        """It said that it is going down, or took no connection, and that counts until then."""
        self.turn = 0
        self.key: _Key = (0, 0, 0)
        self.shelf: _Shelf | None = None
        """None while it is not ready."""

    def usable(self, now_s: float) -> bool:
        """Nothing speaks against asking it."""
        return self.breaker.allows(now_s) and now_s >= self.away_until_s

    def has_room(self, cost_tokens: int) -> bool:
        """An idle replica takes anything: what is too large for it, it says itself."""
        replica = self.replica
        return self.requests == 0 or (
            (replica.capacity_requests is None or self.requests < replica.capacity_requests)
            and (replica.capacity_tokens is None or self.cost_tokens + cost_tokens <= replica.capacity_tokens)
        )


class LoadOrder:
    """Every replica of one model, by slot, and the order in which the ready ones are asked."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._by_address: dict[str, Entry] = {}
        self._free: _Shelf = []
        self._full: _Shelf = []
        self._shut: _Shelf = []
        self._probes: list[tuple[float, int]] = []
        """When which open breaker may let a request through; what is out of date is passed over."""
        self._most_tokens: float | None = None
        """No replica here holds more; None until it is asked for."""
        self._turn = 0

    @property
    def ready(self) -> int:
        """How many replicas take requests."""
        return len(self._free) + len(self._full) + len(self._shut)

    def at(self, address: str) -> Entry | None:
        """The replica that listens there."""
        return self._by_address.get(address)

    def put(self, replica: ReplicaView, *, requests: int, cost_tokens: int, now_s: float) -> None:
        """Add a replica, or what has become of it. A new process starts with a closed breaker."""
        entry = self.entries.get(replica.slot)
        if entry is None:
            entry = self.entries[replica.slot] = Entry(replica, requests, cost_tokens)
        else:
            self._forget_address(entry)
            if entry.replica.base_url != replica.base_url:
                entry.breaker, entry.away_until_s = CLOSED, 0.0
            entry.replica = replica
        if replica.base_url:
            self._by_address[replica.base_url] = entry
        self._most_tokens = None
        self._shelve(entry, now_s)

    def drop(self, slot: int) -> None:
        """It is not of this model any more."""
        entry = self.entries.pop(slot)
        self._forget_address(entry)
        self._unshelve(entry)
        self._most_tokens = None

    def carry(self, entry: Entry, requests: int, cost_tokens: int, now_s: float) -> None:
        """It carries so much now."""
        entry.requests, entry.cost_tokens = requests, cost_tokens
        if entry.shelf is not None:
            self._shelve(entry, now_s)

    def chosen(self, entry: Entry, requests: int, cost_tokens: int, now_s: float) -> None:
        """It was given a request, and carries so much with it."""
        self._turn = entry.turn = self._turn + 1
        if entry.breaker is not CLOSED:
            entry.breaker = entry.breaker.probing(now_s)
        entry.requests, entry.cost_tokens = requests, cost_tokens
        self._shelve(entry, now_s)

    def judge(self, entry: Entry, breaker: Breaker, now_s: float) -> None:
        """What is known of its health now."""
        entry.breaker = breaker
        if entry.shelf is not None:
            self._shelve(entry, now_s)

    def leaves(self, entry: Entry, until_s: float, now_s: float) -> None:
        """It said that it is going down, or took no connection."""
        entry.away_until_s = max(until_s, entry.away_until_s)
        if entry.shelf is not None:
            self._shelve(entry, now_s)

    def choose(
        self, cost_tokens: int, now_s: float, *, passed: Collection[str] = (), beyond: bool = False
    ) -> tuple[Verdict, Entry | None]:
        """The one with least to do that has room for the cost, but none whose address was `passed`.

        `beyond` is for a request that may go beyond a replica's capacity.
        """
        if self._probes:
            self._let_probes_through(now_s)
        found = self._first(cost_tokens, passed) if not beyond else self._least(passed)
        if found is not None:
            return Verdict.FOUND, found
        if self._others_on((self._free, self._full), passed):
            return Verdict.BUSY, None
        for key in self._shut:
            entry = self.entries[key[2]]
            if entry.replica.base_url not in passed and (beyond or entry.has_room(cost_tokens)):
                return Verdict.FOUND, entry
        return (Verdict.BUSY if self._others_on((self._shut,), passed) else Verdict.NONE), None

    def trusted_other_than(self, passed: Collection[str]) -> bool:
        """Whether a ready replica is left that no breaker is open for and whose address was not `passed`."""
        return self._others_on((self._free, self._full), passed)

    # how

    def _first(self, cost_tokens: int, passed: Collection[str]) -> Entry | None:
        """The first with room. Those behind one that is fuller than any may be are no better."""
        for key in self._free:
            entry = self.entries[key[2]]
            if entry.has_room(cost_tokens):
                if not passed or entry.replica.base_url not in passed:
                    return entry
            elif key[0] + cost_tokens > self._capacity_tokens():
                return None
        return None

    def _least(self, passed: Collection[str]) -> Entry | None:
        firsts = [entry for shelf in (self._free, self._full) if (entry := self._head(shelf, passed))]
        return min(firsts, key=lambda entry: entry.key, default=None)

    def _head(self, shelf: _Shelf, passed: Collection[str]) -> Entry | None:
        entries = (self.entries[key[2]] for key in shelf)
        return next((entry for entry in entries if entry.replica.base_url not in passed), None)

    def _others_on(self, shelves: tuple[_Shelf, ...], passed: Collection[str]) -> bool:
        count = sum(map(len, shelves))
        if not count or not passed:
            return bool(count)
        known = (self._by_address.get(address) for address in passed)
        return count > sum(
            entry is not None and any(entry.shelf is shelf for shelf in shelves) for entry in known
        )

    def _let_probes_through(self, now_s: float) -> None:
        while self._probes and self._probes[0][0] <= now_s:
            _, slot = heapq.heappop(self._probes)
            entry = self.entries.get(slot)
            if entry is not None and entry.shelf is self._shut and entry.usable(now_s):
                self._shelve(entry, now_s)

    def _shelve(self, entry: Entry, now_s: float) -> None:
        if entry.shelf is not None:
            self._unshelve(entry)
        replica = entry.replica
        if not replica.routable:
            return
        entry.key = (entry.cost_tokens, entry.turn, replica.slot)
        if (entry.breaker is not CLOSED or entry.away_until_s) and not entry.usable(now_s):
            entry.shelf = self._shut
            at_s = max(entry.breaker.probe_at_s if entry.breaker.opened else 0.0, entry.away_until_s)
            heapq.heappush(self._probes, (at_s, replica.slot))
        else:
            entry.shelf = self._free if entry.has_room(0) else self._full
        insort(entry.shelf, entry.key)

    def _unshelve(self, entry: Entry) -> None:
        if entry.shelf is not None:
            del entry.shelf[bisect_left(entry.shelf, entry.key)]
            entry.shelf = None

    def _forget_address(self, entry: Entry) -> None:
        if self._by_address.get(entry.replica.base_url) is entry:
            del self._by_address[entry.replica.base_url]

    def _capacity_tokens(self) -> float:
        """What the largest here holds."""
        if self._most_tokens is None:
            most = (entry.replica.capacity_tokens for entry in self.entries.values())
            self._most_tokens = max((math.inf if each is None else each for each in most), default=math.inf)
        return self._most_tokens
