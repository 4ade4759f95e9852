"""Watches the exchanges under way: which replica is gone, which stream is silent, who shows no life at all.

A replica that is stopped or stuck keeps its connections open and says nothing. How long is too long is
learnt from its own pace: the usual time between two events, and the time to the first one, as a prefill may
hold up every other stream of an engine. A floor keeps a short pause from being called a death.

A process that was told to end closes its door first: where connections are refused and nothing comes to
anybody for the least silence, whoever waits there for an answer goes elsewhere. What does come may end.

A first event that never comes shows less: its replica may serve all others. It is waited for in proportion to
what the replica had to work off when it was asked, by what such waits have cost there before. A replica that
is not known yet, and an answer in one piece, are held against what its twins take, and only while nothing
else comes from there either.

Nobody is given up whom no other replica could replace: who waits may yet go on, who was given up has lost.
And each time the same request was lost it is waited for twice as long: where all pause, change is no help.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.exchange.relay import Relay

_PATIENCE = 40.0  # usual intervals between two events
_FIRST_PATIENCE = 10.0  # longest waits for a first event
_FIRST_FLOOR = 3.0  # least silences
_REFUSED_S = 10.0  # so long a refused connection counts; where others ask there is soon another
_STREAMS_THAT_TELL = 8  # of one replica, before its waits are known
_MEMORY = 0.8  # of what was learnt before, against the newest stream
_SERVING = frozenset({ReplicaState.READY, ReplicaState.DRAINING})


@dataclass(slots=True)
class _Waits:
    """How long answers of one kind have kept their clients waiting."""

    count: int = 0
    longest_s: float = 0.0
    """Fading, as what follows."""
    longest_per_token_s: float = 0.0
    """For each token that was ahead."""

    def learn(self, wait_s: float, ahead_tokens: int) -> None:
        self.count += 1
        self.longest_s = max(wait_s, _MEMORY * self.longest_s)
        self.longest_per_token_s = max(wait_s / ahead_tokens, _MEMORY * self.longest_per_token_s)

    def for_tokens(self, ahead_tokens: int) -> float:
        """The longest that was met behind so much work."""
        return max(self.longest_s, self.longest_per_token_s * ahead_tokens)


@dataclass(slots=True)
class _Pace:
    """What one replica's answers have taught."""

    interval_s: float | None = None
    """The usual time between two events."""
    first: _Waits = field(default_factory=_Waits)
    """For the first event of a stream."""
    whole: _Waits = field(default_factory=_Waits)
    """For an answer in one piece."""

    def learn_interval(self, interval_s: float) -> None:
        known_s = interval_s if self.interval_s is None else self.interval_s
        self.interval_s = _MEMORY * known_s + (1 - _MEMORY) * interval_s


@dataclass(slots=True)
class _Address:
    """What is under way at one address, and when it last brought anything to anybody here."""

    relays: set[Relay] = field(default_factory=set)
    ended_pieces: int = 0
    """Of the relays that have ended since it was looked at with none."""
    seen_pieces: int = 0
    life_s: float | None = None


class StreamWatch:
    """The relays of one worker that are under way, by the address of their replica."""

    def __init__(self, stall_s: float, on_moved: Callable[[str], None] = lambda base_url: None) -> None:
        """`on_moved` is told, whenever somebody looks, of every address that has brought something."""
        self._stall_s = stall_s
        self._on_moved = on_moved
        self._addresses: dict[str, _Address] = {}
        self._paces: defaultdict[str, _Pace] = defaultdict(_Pace)
        self._twins: dict[str, tuple[str, ...]] = {}
        """The addresses of each one's model."""
        self._doubted: frozenset[str] = frozenset()
        """Addresses that others keep, and that do not answer the supervisor."""
        self._refused_s: dict[str, float] = {}
        """When addresses last took no connection."""

    def enter(self, base_url: str, relay: Relay) -> None:
        address = self._addresses.get(base_url)
        if address is None:
            address = self._addresses[base_url] = _Address()
        address.relays.add(relay)

    def leave(self, base_url: str, relay: Relay) -> None:
        """A relay that ended. A stream teaches how long its prefill took and, if long enough, its pace; an
        answer in one piece teaches how long it took."""
        address, whole_s = self._addresses[base_url], relay.whole_s
        address.relays.discard(relay)
        address.ended_pieces += relay.signs
        if whole_s is not None:
            self._paces[base_url].whole.learn(whole_s, relay.question.ahead_tokens or 1)
            return
        prefill_s, interval_s = relay.prefill_s, relay.interval_s
        if interval_s is not None:
            self._paces[base_url].learn_interval(interval_s)
        if prefill_s is not None:
            self._paces[base_url].first.learn(prefill_s, relay.question.ahead_tokens or 1)

    def refused(self, base_url: str, now_s: float) -> None:
        """A connection was refused there."""
        self._refused_s[base_url] = now_s

    def silence_limit_s(self, base_url: str) -> float:
        """How long a stream from there may bring nothing."""
        pace = self._paces[base_url]
        return max(self._stall_s, _PATIENCE * (pace.interval_s or 0.0), pace.first.longest_s)

    def first_limit_s(self, base_url: str, ahead_tokens: int) -> float:
        """How long a stream from there may take to begin, behind so much work; no limit before it is known
        how long that takes there."""
        waits = self._paces[base_url].first
        if waits.count < _STREAMS_THAT_TELL:
            return math.inf
        return self._limit_s(waits.for_tokens(ahead_tokens))

    def lifeless_limit_s(self, base_url: str, ahead_tokens: int, *, whole: bool) -> float:
        """How long nothing at all may come from there while such a request waits, by what its model's other
        replicas take; no limit where they have answered none."""
        if base_url in self._doubted:
            return self._limit_s(0.0)
        twins = (self._paces[url] for url in self._twins.get(base_url, ()) if url != base_url)
        waits = [pace.whole if whole else pace.first for pace in twins]
        known = [each.for_tokens(ahead_tokens) for each in waits if each.count]
        return self._limit_s(max(known)) if known else math.inf

    def sweep(self, now_s: float) -> None:
        """Give up what has been silent too long. A stream that its client holds back is not."""
        self._refused_s = {url: at_s for url, at_s in self._refused_s.items() if now_s - at_s < _REFUSED_S}
        for base_url, address in tuple(self._addresses.items()):
            lifeless_s = self._lifeless_s(base_url, address, now_s)
            if not address.relays:
                del self._addresses[base_url]
                continue
            learnt_s = self.silence_limit_s(base_url)
            for relay in tuple(address.relays):
                asked = relay.question
                limit_s = asked.patience * max(learnt_s, _PATIENCE * (relay.interval_s or 0.0))
                if relay.silent_s(now_s) > limit_s:
                    if asked.may_go is None or asked.may_go():
                        relay.lose(f"no event for {limit_s:.1f} s")
                elif asked.impatient and not relay.signs and asked.may_go is not None:
                    waited_s = relay.waiting_s(now_s)
                    if self._is_too_long(base_url, relay, waited_s, lifeless_s) and asked.may_go():
                        what = "answer" if asked.whole else "first event"
                        relay.lose(f"no {what} for {waited_s:.1f} s", innocent=True)

    def fleet_changed(self, view: FleetView) -> None:
        """Give up what runs on replicas that the supervisor says are gone.

        What it says of an address that others keep is no more than that it did not answer: what comes from
        there speaks for it.
        """
        there = {replica.base_url: replica for replica in view.replicas if replica.base_url}
        by_model: defaultdict[str, list[str]] = defaultdict(list)
        for url, replica in there.items():
            by_model[replica.model].append(url)
        self._twins = {url: tuple(urls) for urls in by_model.values() for url in urls}
        serving = {url for url, each in there.items() if each.state in _SERVING or not each.is_ours}
        self._doubted = frozenset(url for url in serving if there[url].state not in _SERVING)
        for base_url, address in tuple(self._addresses.items()):
            if base_url not in serving:
                stopping = base_url in there and there[base_url].state is ReplicaState.STOPPING
                for relay in tuple(address.relays):
                    relay.lose("the supervisor says that it is gone", innocent=stopping)
        for base_url in self._paces.keys() - serving:
            del self._paces[base_url]

    def _limit_s(self, longest_s: float) -> float:
        return max(_FIRST_FLOOR * self._stall_s, _FIRST_PATIENCE * longest_s)

    def _is_too_long(self, base_url: str, relay: Relay, waited_s: float, lifeless_s: float) -> bool:
        """Whether a request that has brought nothing was waited for long enough."""
        ahead, whole = relay.question.ahead_tokens, relay.question.whole
        if not whole and waited_s > self.first_limit_s(base_url, ahead):
            return True
        silent_s = min(waited_s, lifeless_s)
        if silent_s <= self._stall_s:
            return False
        if base_url in self._refused_s:
            return True
        return silent_s > self.lifeless_limit_s(base_url, ahead, whole=whole)

    def _lifeless_s(self, base_url: str, address: _Address, now_s: float) -> float:
        """For how long nothing has come from there, while something is under way."""
        pieces = address.ended_pieces + sum(relay.signs for relay in address.relays)
        if pieces != address.seen_pieces:
            self._on_moved(base_url)
        elif address.life_s is not None:
            return now_s - address.life_s
        address.seen_pieces, address.life_s = pieces, now_s
        return 0.0
