"""Requests that kill: one that two replicas died of is not sent to a third.

A lost replica is held against a request that was in flight on it and had brought nothing: what kills an
engine does so before its first token. Streams that were under way are victims. Whether the replica really
died is known a little later, from the fleet view: a request that only lost its connections is not kept out.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from autoglm_serve.core.fleet import FleetView

KILLS = 2
QUARANTINE_S = 600.0
_REMEMBERED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convict:
    until_s: float
    length: int
    killed: frozenset[str]


class Quarantine:
    """The suspects of one worker, by the hash of what was asked."""

    def __init__(self) -> None:
        self._kills: OrderedDict[bytes, frozenset[str]] = OrderedDict()
        """Addresses of the replicas that were lost."""
        self._convicts: OrderedDict[bytes, _Convict] = OrderedDict()
        self._lengths: frozenset[int] = frozenset()
        """Of quarantined bodies: hashing is for those that could be one."""

    def blame(self, body: bytes, base_url: str, now_s: float) -> bool:
        """Hold the loss of a replica against `body`; true if it is one too many."""
        suspect = _hash(body)
        kills = self._kills.pop(suspect, frozenset()) | {base_url}
        self._kills[suspect] = kills
        if len(self._kills) > _REMEMBERED:
            self._kills.popitem(last=False)
        if len(kills) < KILLS:
            return False
        self._convicts.pop(suspect, None)
        until_s = now_s + QUARANTINE_S
        self._convicts[suspect] = _Convict(until_s=until_s, length=len(body), killed=kills)
        if len(self._convicts) > _REMEMBERED:
            self._convicts.popitem(last=False)
        self._lengths = frozenset(convict.length for convict in self._convicts.values())
        return True

    def holds(self, body: bytes, fleet: FleetView, now_s: float) -> bool:
        """`body` is in quarantine."""
        if len(body) not in self._lengths:
            return False
        convict = self._convicts.get(_hash(body))
        if convict is None or now_s >= convict.until_s:
            return False
        return convict.killed.isdisjoint(each.base_url for each in fleet.replicas if each.routable)

    def clear(self, body: bytes) -> None:
        """It was answered: whatever died while it ran, it was not of this."""
        if self._kills:
            self._kills.pop(_hash(body), None)


def _hash(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
