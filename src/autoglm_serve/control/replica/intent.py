"""What is wanted of a replica now, and how to wait for a change without missing one."""

import asyncio
from enum import Enum, auto


class Intent(Enum):
    """What is to become of the replica."""

    RUN = auto()
    DRAIN = auto()  # as it is, without new requests; not started again
    RENEW = auto()  # stopped, and started again at once
    SLEEP = auto()  # stopped, until it is woken
    END = auto()  # stopped for good

    @property
    def alive(self) -> bool:
        """The process, if there is one, may go on."""
        return self in (Intent.RUN, Intent.DRAIN)


class IntentCell:
    """The present intent and its version; who follows it waits for a newer one."""

    def __init__(self, now: Intent) -> None:
        self.now = now
        self.grace_s = 0.0
        """For what is in flight, where a process has to stop."""
        self.version = 0
        self._news = asyncio.Event()

    def make(self, now: Intent, grace_s: float = 0.0) -> None:
        self.now, self.grace_s = now, grace_s
        self.version += 1
        self._news.set()

    async def changed(self, seen: int) -> None:
        """Returns once there is a intent newer than version `seen`."""
        while self.version == seen:
            self._news.clear()
            await self._news.wait()
