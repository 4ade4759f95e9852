"""Watches the streams under way: which replica is gone, and which has fallen silent.

A replica that is stopped or stuck keeps its connections open and says nothing. How long is too long is
learnt from its own pace: the usual time between two events, and the time to the first one, as a prefill may
hold up every other stream of an engine. A floor keeps a short pause from being called a death.
"""

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.relay import Relay

_PATIENCE = 40.0  # usual intervals between two events
_MEMORY = 0.8  # of what was learnt before, against the newest stream
_SERVING = frozenset({ReplicaState.READY, ReplicaState.DRAINING})


class StreamWatch:
    """The relays of one worker that are under way, by the address of their replica."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._relays: dict[str, set[Relay]] = {}
        self._paces: dict[str, float] = {}
        self._prefills: dict[str, float] = {}
        """The longest waits for a first event, fading."""

    def enter(self, base_url: str, relay: Relay) -> None:
        self._relays.setdefault(base_url, set()).add(relay)

    def leave(self, base_url: str, relay: Relay) -> None:
        """A relay that ended; a stream teaches how long its prefill took and, if long enough, its pace."""
        relays = self._relays[base_url]
        relays.discard(relay)
        if not relays:
            del self._relays[base_url]
        interval_s = relay.interval_s
        if interval_s is not None:
            known_s = self._paces.get(base_url, interval_s)
            self._paces[base_url] = _MEMORY * known_s + (1 - _MEMORY) * interval_s
        self._prefills[base_url] = max(relay.prefill_s, _MEMORY * self._prefills.get(base_url, 0.0))

    def silence_limit_s(self, base_url: str) -> float:
        """How long a stream from there may bring nothing."""
        pace_s, prefill_s = self._paces.get(base_url, 0.0), self._prefills.get(base_url, 0.0)
        return max(self._stall_s, _PATIENCE * pace_s, prefill_s)

    def sweep(self, now_s: float) -> None:
        """Give up what has been silent too long. A stream that its client holds back is not."""
        for base_url, relays in tuple(self._relays.items()):
            learnt_s = self.silence_limit_s(base_url)
            for relay in tuple(relays):
                limit_s = max(learnt_s, _PATIENCE * (relay.interval_s or 0.0))
                if relay.silent_s(now_s) > limit_s:
                    relay.lose(f"no event for {limit_s:.1f} s")

    def fleet_changed(self, view: FleetView) -> None:
        """Give up what runs on replicas that the supervisor says are gone."""
        serving = {replica.base_url for replica in view.replicas if replica.state in _SERVING}
        stopping = {each.base_url for each in view.replicas if each.state is ReplicaState.STOPPING}
        for base_url in tuple(self._relays):
            if base_url not in serving and not base_url.startswith("unix:"):
                for relay in tuple(self._relays[base_url]):
                    relay.lose("the supervisor says that it is gone", innocent=base_url in stopping)
        self._paces = {url: pace for url, pace in self._paces.items() if url in serving}
        self._prefills = {url: wait for url, wait in self._prefills.items() if url in serving}
