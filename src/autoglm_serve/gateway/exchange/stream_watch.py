"""Watches the streams under way: which replica is gone, and which has fallen silent.

A replica that is stopped or stuck keeps its connections open and says nothing. How long is too long is
learnt from its own pace: the usual time between two events, and the time to the first one, as a prefill may
hold up every other stream of an engine. A floor keeps a short pause from being called a death.

A first event that never comes shows less: its replica may serve all others. It is waited for in proportion to
what the replica had to work off when it was asked, by what such waits have cost there before, and given up
only where another could be asked.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.exchange.relay import Relay

_PATIENCE = 40.0  # usual intervals between two events
_FIRST_PATIENCE = 10.0  # longest waits for a first event
_FIRST_FLOOR = 3.0  # least silences
_STREAMS_THAT_TELL = 8  # of one replica, before its waits are known
_MEMORY = 0.8  # of what was learnt before, against the newest stream
_SERVING = frozenset({ReplicaState.READY, ReplicaState.DRAINING})


@dataclass(slots=True)
class _Pace:
    """What one replica's streams have taught."""

    interval_s: float | None = None
    """The usual time between two events."""
    longest_s: float = 0.0
    """The longest wait for a first event, fading."""
    begun: int = 0
    """How many first events have come."""
    longest_per_token_s: float = 0.0
    """The longest wait for one per token ahead of it, fading."""

    def learn_interval(self, interval_s: float) -> None:
        known_s = interval_s if self.interval_s is None else self.interval_s
        self.interval_s = _MEMORY * known_s + (1 - _MEMORY) * interval_s

    def learn_wait(self, wait_s: float, ahead_tokens: int) -> None:
        self.longest_s = max(wait_s, _MEMORY * self.longest_s)
        self.begun += 1
        self.longest_per_token_s = max(wait_s / ahead_tokens, _MEMORY * self.longest_per_token_s)


class StreamWatch:
    """The relays of one worker that are under way, by the address of their replica."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._relays: dict[str, set[Relay]] = {}
        self._paces: defaultdict[str, _Pace] = defaultdict(_Pace)

    def enter(self, base_url: str, relay: Relay) -> None:
        self._relays.setdefault(base_url, set()).add(relay)

    def leave(self, base_url: str, relay: Relay) -> None:
        """A relay that ended; a stream teaches how long its prefill took and, if long enough, its pace."""
        relays = self._relays[base_url]
        relays.discard(relay)
        if not relays:
            del self._relays[base_url]
        if relay.interval_s is not None:
            self._paces[base_url].learn_interval(relay.interval_s)
        if relay.prefill_s is not None:
            self._paces[base_url].learn_wait(relay.prefill_s, max(1, relay.ahead_tokens))

    def silence_limit_s(self, base_url: str) -> float:
        """How long a stream from there may bring nothing."""
        pace = self._paces[base_url]
        return max(self._stall_s, _PATIENCE * (pace.interval_s or 0.0), pace.longest_s)

    def first_limit_s(self, base_url: str, ahead_tokens: int) -> float:
        """How long a stream from there may take to begin, behind so much work; no limit before it is known
        how long that takes there."""
        pace = self._paces[base_url]
        if pace.begun < _STREAMS_THAT_TELL:
            return math.inf
        longest_s = max(pace.longest_s, pace.longest_per_token_s * ahead_tokens)
        return max(_FIRST_FLOOR * self._stall_s, _FIRST_PATIENCE * longest_s)

    def sweep(self, now_s: float) -> None:
        """Give up what has been silent too long. A stream that its client holds back is not."""
        for base_url, relays in tuple(self._relays.items()):
            learnt_s = self.silence_limit_s(base_url)
            for relay in tuple(relays):
                limit_s = max(learnt_s, _PATIENCE * (relay.interval_s or 0.0))
                if relay.silent_s(now_s) > limit_s:
                    relay.lose(f"no event for {limit_s:.1f} s")
                elif relay.may_go is not None and not relay.events:
                    waited_s = relay.waiting_s(now_s)
                    if waited_s > self.first_limit_s(base_url, relay.ahead_tokens) and relay.may_go():
                        relay.lose(f"no first event for {waited_s:.1f} s", innocent=True)

    def fleet_changed(self, view: FleetView) -> None:
        """Give up what runs on replicas that the supervisor says are gone."""
        serving = {replica.base_url for replica in view.replicas if replica.state in _SERVING}
        stopping = {each.base_url for each in view.replicas if each.state is ReplicaState.STOPPING}
        for base_url in tuple(self._relays):
            if base_url not in serving and not base_url.startswith("unix:"):
                for relay in tuple(self._relays[base_url]):
                    relay.lose("the supervisor says that it is gone", innocent=base_url in stopping)
        for base_url in self._paces.keys() - serving:
            del self._paces[base_url]
