"""Time, passed in: tests hand over a clock that they turn themselves."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now_s(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    async def sleep(self, delay_s: float) -> None: ...


class RealClock:
    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
