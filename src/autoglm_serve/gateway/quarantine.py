"""Requests that kill: one that two replicas died of is not sent to a third.

A replica's death is held against a request that was in flight on it and had brought nothing: what kills an
engine does so before its first token. Streams that were under way are victims.
"""

import hashlib
from collections import OrderedDict

KILLS = 2
QUARANTINE_S = 600.0
_REMEMBERED = 256


class Quarantine:
    """The suspects of one worker, by the hash of what was asked."""

    def __init__(self) -> None:
        self._kills: OrderedDict[bytes, int] = OrderedDict()
        self._until_s: dict[bytes, float] = {}
        self._lengths: set[int] = set()
        """Of quarantined bodies: hashing is for those that could be one."""

    def blame(self, body: bytes, now_s: float) -> bool:
        """Hold a death against `body`; true if it is one too many."""
        suspect = _hash(body)
        kills = self._kills.pop(suspect, 0) + 1
        self._kills[suspect] = kills
        if len(self._kills) > _REMEMBERED:
            self._kills.popitem(last=False)
        if kills < KILLS:
            return False
        self._until_s[suspect] = now_s + QUARANTINE_S
        self._lengths.add(len(body))
        return True

    def holds(self, body: bytes, now_s: float) -> bool:
        """`body` is in quarantine."""
        if len(body) not in self._lengths:
            return False
        until_s = self._until_s.get(_hash(body), 0.0)
        return now_s < until_s

    def clear(self, body: bytes) -> None:
        """It was answered: whatever died while it ran, it was not of this."""
        if self._kills:
            self._kills.pop(_hash(body), None)


def _hash(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
