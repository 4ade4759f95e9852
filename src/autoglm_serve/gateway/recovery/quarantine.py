"""Requests that kill: one that two replicas died of is not sent to a third.

A lost replica is held against a request that was in flight on it and had brought nothing: what kills an
engine does so before its first token. Streams that were under way are victims.

How the replica ended counts. By itself, which is an exit, a fault or the kernel's out-of-memory killer, it
is a death. Ended by somebody, or nobody knows how, it is half a one: two strangers' kills make no poison of
what waited there, and yet a request that makes a watchdog kill again and again is stopped. With nobody to
say, as for an address that others keep, it is taken for a whole one.

Whether a replica really is gone is known from the fleet view: a request that only lost its connections is not
kept out.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from autoglm_serve.core.fleet import FleetView

KILLS = 2.0
"""Deaths that are enough."""
BY_OTHERS = 0.5
"""What a replica counts that somebody ended."""
QUARANTINE_S = 600.0
_REMEMBERED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What is held against one request."""

    until_s: float
    length: int
    lost: frozenset[str]
    """Addresses of the replicas that were lost."""


class Quarantine:
    """The suspects of one worker, by the hash of what was asked."""

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._convicts: OrderedDict[bytes, _Record] = OrderedDict()
        self._by_itself: OrderedDict[str, bool] = OrderedDict()
        """How replicas ended, by their address, as the supervisor says."""
        self._lengths: frozenset[int] = frozenset()
        """Of the bodies known here: hashing is for those that could be one."""

    def fleet_changed(self, view: FleetView) -> None:
        """Hear how replicas ended."""
        for replica in view.replicas:
            if replica.lost is not None and replica.lost.base_url not in self._by_itself:
                self._by_itself[replica.lost.base_url] = replica.lost.by_itself
                _forget_oldest(self._by_itself)

    def knows_end_of(self, base_url: str) -> bool:
        """The supervisor has said how it ended."""
        return base_url in self._by_itself

    def blame(self, body: bytes, base_url: str, now_s: float) -> None:
        """Hold the loss of a replica against `body`."""
        suspect = _hash(body)
        known = self._records.pop(suspect, None)
        lost = known.lost if known is not None and now_s < known.until_s else frozenset()
        self._records[suspect] = _Record(
            until_s=now_s + QUARANTINE_S, length=len(body), lost=lost | {base_url}
        )
        _forget_oldest(self._records)
        self._note_lengths()

    def suspects(self, body: bytes) -> bool:
        """A replica may have died of it."""
        return self._deaths(body) >= 1

    def condemns(self, body: bytes) -> bool:
        """What is held against it is enough."""
        return self._deaths(body) >= KILLS

    def convict(self, body: bytes, now_s: float) -> None:
        """Keep it out for a while."""
        suspect = _hash(body)
        record = self._records.pop(suspect)
        self._convicts.pop(suspect, None)
        self._convicts[suspect] = _Record(
            until_s=now_s + QUARANTINE_S, length=record.length, lost=record.lost
        )
        _forget_oldest(self._convicts)
        self._note_lengths()

    def holds(self, body: bytes, fleet: FleetView, now_s: float) -> bool:
        """`body` is in quarantine."""
        if len(body) not in self._lengths:
            return False
        convict = self._convicts.get(_hash(body))
        if convict is None or now_s >= convict.until_s:
            return False
        return convict.lost.isdisjoint(each.base_url for each in fleet.replicas if each.routable)

    def clear(self, body: bytes) -> None:
        """It was answered: whatever died while it ran, it was not of this."""
        if len(body) in self._lengths and self._records.pop(_hash(body), None) is not None:
            self._note_lengths()

    def _deaths(self, body: bytes) -> float:
        record = self._records.get(_hash(body)) if len(body) in self._lengths else None
        if record is None:
            return 0.0
        return sum(1.0 if self._by_itself.get(url, True) else BY_OTHERS for url in record.lost)

    def _note_lengths(self) -> None:
        records = (*self._records.values(), *self._convicts.values())
        self._lengths = frozenset(record.length for record in records)


def _forget_oldest(known: "OrderedDict[bytes, _Record] | OrderedDict[str, bool]") -> None:
    if len(known) > _REMEMBERED:
        known.popitem(last=False)


def _hash(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
