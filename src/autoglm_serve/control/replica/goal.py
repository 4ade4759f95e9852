"""What is wanted of a replica now, and how to wait for a change without missing one."""

import asyncio
from enum import Enum, auto


class Want(Enum):
    """What the keeper is to bring about."""

    RUN = auto()
    DRAIN = auto()  # as it is, without new requests; not started again
    RENEW = auto()  # stopped, and started again at once
    REST = auto()  # stopped, until it is woken
    END = auto()  # stopped for good

    @property
    def alive(self) -> bool:
        """The process, if there is one, may go on."""
        return self in (Want.RUN, Want.DRAIN)


class Wish:
    """The present want. Made by whoever controls the replica, followed by its keeper."""

    def __init__(self, want: Want) -> None:
        self.want = want
        self.grace_s = 0.0
        """For what is in flight, where a process has to stop."""
        self.version = 0
        self._news = asyncio.Event()

    def make(self, want: Want, grace_s: float = 0.0) -> None:
        self.want, self.grace_s = want, grace_s
        self.version += 1
        self._news.set()

    async def changed(self, seen: int) -> None:
        """Returns once there is a wish newer than version `seen`."""
        while self.version == seen:
            self._news.clear()
            await self._news.wait()
