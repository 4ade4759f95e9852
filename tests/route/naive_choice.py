"""The choice of a replica, made anew over all of them each time: the oracle of the order that is kept."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.route.load_order import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A replica, and what is known of it at this moment."""

    replica: ReplicaView
    cost_tokens: int = 0
    requests: int = 0
    usable: bool = True
    """No breaker is open for it."""
    turn: int = 0
    """In which it was last chosen."""

    def has_room(self, cost_tokens: int) -> bool:
        replica = self.replica
        return self.requests == 0 or (
            (replica.capacity_requests is None or self.requests < replica.capacity_requests)
            and (replica.capacity_tokens is None or self.cost_tokens + cost_tokens <= replica.capacity_tokens)
        )


def choose(
    candidates: Iterable[Candidate], cost_tokens: int, passed: Collection[str], *, beyond: bool
) -> tuple[Verdict, ReplicaView | None]:
    able = [one for one in candidates if one.replica.routable and one.replica.base_url not in passed]
    able = [one for one in able if one.usable] or able
    free = [one for one in able if beyond or one.has_room(cost_tokens)]
    if not free:
        return (Verdict.BUSY if able else Verdict.NONE), None
    best = min(free, key=lambda one: (one.cost_tokens, one.turn, one.replica.slot))
    return Verdict.FOUND, best.replica
