"""A clock that stands still until a test turns it."""

import asyncio
import heapq
from itertools import count

SETTLE_ROUNDS = 50


class FakeClock:
    """Sleepers wake in the order of their times, each with all that follows from it before the next."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self._now_s

    async def sleep(self, delay_s: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + delay_s, next(self._order), woken))
        await woken

    def jump(self, by_s: float) -> None:
        """Turns it and wakes nobody: who sleeps finds that it is late."""
        self._now_s += by_s

    async def advance(self, by_s: float) -> None:
        """Turns it, wakes whoever sleeps until then, and lets the loop come to rest."""
        await settled()
        until_s = self._now_s + by_s
        while self._sleepers and self._sleepers[0][0] <= until_s:
            due_s, _, woken = heapq.heappop(self._sleepers)
            self._now_s = max(self._now_s, due_s)
            if not woken.done():
                woken.set_result(None)
                await settled()
        self._now_s = until_s
        await settled()


async def settled() -> None:
    """Lets every task run until each of them waits for something that is not there yet."""
    for _ in range(SETTLE_ROUNDS):
        await asyncio.sleep(0)
