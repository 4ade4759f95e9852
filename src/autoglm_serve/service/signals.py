"""What a service is told by signals, from the first moment of its boot: nothing is lost or too early."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from autoglm_serve.runtime.tasks import first_of, running

T = TypeVar("T")


class Stopped(Exception):
    """The service was told to stop before it was one."""


class Signals:
    """Stop (SIGINT, SIGTERM), stop at once (a second one), and read the settings again (SIGHUP)."""

    by_manager = False
    """It was SIGTERM, which process managers send: others may still be sending clients here."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.stop_at_once = asyncio.Event()
        self.reload = asyncio.Event()
        """Whoever reads the settings clears it first."""

    def listen(self) -> None:
        """Hear them from now on, in the running loop; what was held back until now is heard too."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work comes to; raises Stopped when a stop comes first."""
        async with running(work, self.stop.wait()) as (task, stop):
            await first_of(task, stop)
            if not task.done():
                raise Stopped
        result: T = task.result()
        return result

    def _told_to_stop(self, number: int) -> None:
        if not self.stop.is_set():
            self.by_manager = number == signal.SIGTERM
        (self.stop_at_once if self.stop.is_set() else self.stop).set()
