"""Least outstanding cost: the replica with the fewest tokens still to work off gets the next request.

A screenshot costs thousands of tokens and a question dozens, so counting requests would call two very
different loads equal. The unit is tokens (`gateway.cost`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autoglm_serve.core.fleet import ReplicaView


@dataclass(frozen=True, slots=True)
class Choice:
    """A replica, or none, and why."""

    replica: ReplicaView | None
    reason: str


def choose(
    replicas: Sequence[ReplicaView], loads: Sequence[int], *, tried: Collection[str] = (), spin: int = 0
) -> Choice:
    """Pick from `replicas`, whose outstanding cost in tokens is `loads`, one not in `tried`.

    Equal loads are broken by `spin`, a number that the caller moves on with every request, so that an
    idle fleet is used in turn.
    """
    best: ReplicaView | None = None
    best_key = (0, 0)
    count = len(replicas)
    for index, replica in enumerate(replicas):
        if not replica.routable or replica.id in tried:
            continue
        key = (loads[index], (index - spin) % count)
        if best is None or key < best_key:
            best, best_key = replica, key
    if best is None:
        return Choice(None, "no other ready replica" if tried else "no ready replica")
    return Choice(best, f"least outstanding cost, {best_key[0]} tokens")
