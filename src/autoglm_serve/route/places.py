"""Who has what of a queue's places, and who gives way where there are no more. Pure.

A place is one, or as many bytes as are kept. Nobody is bounded while there are places. Where there are none,
who has less than another takes over what the other got last, until both have the same. First that is asked
of those who are held to account, then of the clients of one of them.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class _Held:
    """By one holder."""

    size: int = 0
    by_client: dict[str, dict[int, int]] = field(default_factory=dict)
    """Sizes by ticket, the newest last."""


class Places:
    """A number of places, who has them, and in which order they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._held: dict[str, _Held] = {}

    def take(self, holder: str, client: str, ticket: int, size: int) -> None:
        held = self._held.setdefault(holder, _Held())
        held.by_client.setdefault(client, {})[ticket] = size
        held.size += size
        self._size += size

    def give(self, holder: str, client: str, ticket: int) -> None:
        """What this ticket took is free again."""
        held = self._held[holder]
        size = held.by_client[client].pop(ticket)
        held.size -= size
        self._size -= size
        if not held.by_client[client]:
            del held.by_client[client]
            if not held.by_client:
                del self._held[holder]

    def of(self, holder: str) -> int:
        """What a holder has of them."""
        return self._held[holder].size if holder in self._held else 0

    def room_for(self, holder: str, client: str, size: int) -> list[int] | None:
        """The tickets that have to leave before somebody may take so much, mostly none; None: it may not.

        One alone may be larger than all there is.
        """
        if self._size + size <= self._limit or (not self._size and self._limit):
            return []
        leaving: list[int] = []
        freed: Counter[str] = Counter()
        while self._size - freed.total() + size > self._limit:
            gone = self._gives_way(holder, client, size, leaving, freed)
            if gone is None:
                return None
            leaving.append(gone)
        return leaving

    def _gives_way(
        self, holder: str, client: str, size: int, leaving: list[int], freed: Counter[str]
    ) -> int | None:
        """The next that leaves: the newest of whoever has most, if that is more than who comes will have."""
        left = {name: held.size - freed[name] for name, held in self._held.items()}
        largest = max(left, key=left.__getitem__, default=holder)
        if largest == holder or left.get(holder, 0) + size >= left[largest]:
            largest = holder
        clients = self._held[largest].by_client if largest in self._held else {}
        staying = {
            name: {ticket: each for ticket, each in tickets.items() if ticket not in leaving}
            for name, tickets in clients.items()
        }
        sums = {name: sum(tickets.values()) for name, tickets in staying.items() if tickets}
        greedy = max(sums, key=sums.__getitem__, default=None)
        if greedy is None:
            return None
        if largest == holder and (greedy == client or sums.get(client, 0) + size >= sums[greedy]):
            return None
        gone = next(reversed(staying[greedy]))
        freed[largest] += staying[greedy][gone]
        return gone
