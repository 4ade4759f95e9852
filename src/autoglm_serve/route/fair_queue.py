"""A bounded queue that is fair between clients: each in turn, whoever asks how often. Pure.

A client with a hundred requests waiting delays its own hundredth, not another client's first.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First come, first served within a client; round robin between clients."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lanes: dict[str, deque[T]] = {}
        """Clients with something waiting, the next one to be served first."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        return (item for lane in self._lanes.values() for item in lane)

    @property
    def full(self) -> bool:
        return self._size >= self._limit

    def push(self, client: str, item: T) -> None:
        """Let `item` wait. The caller has seen that the queue is not full."""
        self._lanes.setdefault(client, deque()).append(item)
        self._size += 1

    def peek(self) -> T | None:
        """The item whose turn it is."""
        return next((lane[0] for lane in self._lanes.values()), None)

    def pop(self) -> T:
        """Take the item whose turn it is; its client goes to the end of the round."""
        client, lane = next(iter(self._lanes.items()))
        item = lane.popleft()
        del self._lanes[client]
        if lane:
            self._lanes[client] = lane
        self._size -= 1
        return item

    def remove(self, client: str, item: T) -> bool:
        """Take out an item that waits no more; false if it was served already."""
        lane = self._lanes.get(client)
        if lane is None or item not in lane:
            return False
        lane.remove(item)
        self._size -= 1
        if not lane:
            del self._lanes[client]
        return True
