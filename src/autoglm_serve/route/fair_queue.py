"""A bounded queue that is fair between clients: each in turn, whoever asks how often. Pure.

A client with a hundred requests waiting delays its own hundredth, not another client's first. A client is
somebody's: who is held to account for it has no more than some turns in a round, however many clients it
seems to be, as a name may cost nothing to make up.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

TURNS_IN_A_ROUND = 16
"""Of one holder: an office behind one address has a turn for each client, a thousand made-up keys do not."""


class _Lanes(Generic[T]):
    """What the clients of one holder have waiting, the next one to be served first."""

    __slots__ = ("by_client", "turns")

    def __init__(self) -> None:
        self.by_client: dict[str, deque[T]] = {}
        self.turns = 0
        """Left in this round, once it has begun."""

    def pop(self) -> T:
        client, lane = next(iter(self.by_client.items()))
        item = lane.popleft()
        del self.by_client[client]
        if lane:
            self.by_client[client] = lane
        return item


class FairQueue(Generic[T]):
    """First come, first served within a client; round robin between clients."""

    def __init__(self) -> None:
        self._holders: dict[str, _Lanes[T]] = {}
        """Those with something waiting, the next one to be served first."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        return (
            item for lanes in self._holders.values() for lane in lanes.by_client.values() for item in lane
        )

    def push(self, holder: str, client: str, item: T) -> None:
        """Let `item` wait."""
        lanes = self._holders.get(holder)
        if lanes is None:
            lanes = self._holders[holder] = _Lanes()
        lanes.by_client.setdefault(client, deque()).append(item)
        self._size += 1

    def peek(self) -> T | None:
        """The item whose turn it is."""
        lanes = next(iter(self._holders.values()), None)
        return next(iter(lanes.by_client.values()))[0] if lanes is not None else None

    def pop(self) -> T:
        """Take the item whose turn it is; its client goes to the end of the round."""
        holder, lanes = next(iter(self._holders.items()))
        turns = lanes.turns or min(len(lanes.by_client), TURNS_IN_A_ROUND)
        item, lanes.turns = lanes.pop(), turns - 1
        self._size -= 1
        if not (lanes.turns and lanes.by_client):
            del self._holders[holder]
            if lanes.by_client:
                self._holders[holder] = lanes
        return item

    def remove(self, holder: str, client: str, item: T) -> bool:
        """Take out an item that waits no more; false if it was served already."""
        lanes = self._holders.get(holder)
        lane = lanes.by_client.get(client) if lanes is not None else None
        if lanes is None or lane is None or item not in lane:
            return False
        lane.remove(item)
        self._size -= 1
        if not lane:
            del lanes.by_client[client]
            if not lanes.by_client:
                del self._holders[holder]
        return True
