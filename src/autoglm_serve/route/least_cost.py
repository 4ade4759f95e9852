"""Least outstanding cost: the replica with the fewest tokens still to work off gets the next request.

A screenshot costs thousands of tokens and a question dozens, so counting requests would call two very
different loads equal. The unit is tokens (`gateway.cost`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from autoglm_serve.core.fleet import ReplicaView


class Verdict(Enum):
    """What became of the search for a replica."""

    FOUND = "found"
    BUSY = "busy"  # every replica that could serve is at its capacity: wait for one
    NONE = "none"  # no replica could serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A replica, and what is known of it at this moment."""

    replica: ReplicaView
    cost_tokens: int = 0
    """Outstanding, over all gateway workers."""
    requests: int = 0
    usable: bool = True
    """No breaker is open for it."""

    def has_room(self, cost_tokens: int) -> bool:
        """An idle replica takes anything: what is too large for it, it says itself."""
        replica = self.replica
        return self.requests == 0 or (
            (replica.capacity_requests is None or self.requests < replica.capacity_requests)
            and (replica.capacity_tokens is None or self.cost_tokens + cost_tokens <= replica.capacity_tokens)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A replica, or none, and why."""

    verdict: Verdict
    reason: str
    replica: ReplicaView | None = None


def choose(
    candidates: Sequence[Candidate], *, cost_tokens: int = 0, tried: Collection[str] = (), spin: int = 0
) -> Choice:
    """Pick one for a request of `cost_tokens`, but none whose address is in `tried`.

    Replicas that a breaker is open for are asked only where there is no other: a doubtful answer is better
    than none. Equal loads are broken by `spin`, a number that the caller moves on with every request, so
    that an idle fleet is used in turn.
    """
    able = [one for one in candidates if one.replica.routable and one.replica.base_url not in tried]
    able = [one for one in able if one.usable] or able
    if not able:
        return Choice(verdict=Verdict.NONE, reason="no other ready replica" if tried else "no ready replica")
    free = [one for one in able if one.has_room(cost_tokens)]
    if not free:
        return Choice(verdict=Verdict.BUSY, reason="every ready replica is at its capacity")
    count = len(candidates)
    best = min(free, key=lambda one: (one.cost_tokens, (one.replica.slot - spin) % count))
    reason = f"least outstanding cost, {best.cost_tokens} tokens"
    return Choice(verdict=Verdict.FOUND, reason=reason, replica=best.replica)
