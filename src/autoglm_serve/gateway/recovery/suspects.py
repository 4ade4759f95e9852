"""Tells a request that kills from those that were only there when a replica died.

Any of several that waited on a dead replica may be the one. So each suspect is tried alone: on each replica
one at a time waits for its first token, and the next death says which it was. Before one is condemned the
supervisor has a moment to say how the replica ended, because connections break before a process is collected.
Where nobody says, the address itself is asked: one that takes connections has not died.
"""

import asyncio
from collections.abc import Awaitable, Callable

from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.gateway.recovery.fingerprint import Fingerprint
from autoglm_serve.gateway.recovery.quarantine import Quarantine
from autoglm_serve.runtime.observable import Observable

_WORD_S = 0.5
"""For the supervisor's word. It comes within some tens of milliseconds, if there is a supervisor."""
_TURN_S = 10.0
"""At most, for the suspects before: what they take for a first token is no reason to fail."""
_DYING_S = 1.0
_COMPANY_S = 0.05
"""For the others that were lost with it to be heard of."""
_ANSWER_S = 1.0
"""For an address to take a connection."""


async def _nobody_answers(base_url: str) -> bool:
    return False


class Suspects:
    """The suspects of one worker that are being tried, by the address of their replica."""

    def __init__(
        self,
        quarantine: Quarantine,
        fleet: Observable[FleetView],
        now_s: Callable[[], float],
        answers: Callable[[str], Awaitable[bool]] = _nobody_answers,
    ) -> None:
        """`answers` says whether an address takes connections now."""
        self._quarantine = quarantine
        self._fleet = fleet
        self._now_s = now_s
        self._answers = answers
        self._tried: dict[str, object] = {}
        self._lost: dict[str, float] = {}
        """Replicas that were lost just now, and until when that counts."""
        self._news = asyncio.Event()

    async def turn(self, asked: Fingerprint, base_url: str, client: str = "") -> Callable[[], None] | None:
        """Wait until no other suspect waits for its first token there; what is returned makes room for the
        next. Who is not suspected does not wait. None if the replica was lost meanwhile: a process that dies
        still takes connections for a moment, and they would be held against who makes them."""
        if not self._is_suspect(asked, client):
            return _nothing
        try:
            async with asyncio.timeout(_TURN_S):
                while base_url in self._tried and self._is_suspect(asked, client):
                    await self._news.wait()
        except TimeoutError:
            pass
        if self._is_dying(base_url):
            return None
        mine = self._tried[base_url] = object()

        def leave() -> None:
            if self._tried.get(base_url) is mine:
                del self._tried[base_url]
                self.wake()

        return leave

    def wake(self) -> None:
        """Something has changed: somebody's turn may have come, or a suspicion gone."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def lost(self, asked: Fingerprint, replica: ReplicaView, client: str = "") -> bool:
        """A replica was lost under `asked`, which had brought nothing. True if that was one too many."""
        if not replica.is_ours and await self._takes_connections(replica.base_url):
            return False  # a connection broke; the address is well
        self._quarantine.blame(asked, replica.base_url, self._now_s())
        return await self.condemns(asked, replica, client)

    async def condemns(self, asked: Fingerprint, replica: ReplicaView, client: str = "") -> bool:
        """Whether the loss of this replica, which has just been held against `asked`, was one too many."""
        self._lost[replica.base_url] = self._now_s() + _DYING_S
        if not self._quarantine.condemns(asked, client, self._now_s()):
            return False
        await asyncio.sleep(_COMPANY_S)
        if replica.is_ours:
            await self._word_on(replica.base_url)
        for base_url in self._quarantine.unexplained(asked):
            if await self._takes_connections(base_url):
                self._quarantine.acquit(base_url)
        return self._quarantine.condemns(asked, client, self._now_s())

    def _is_suspect(self, asked: Fingerprint, client: str) -> bool:
        return self._quarantine.suspects(asked, client, self._now_s())

    def _is_dying(self, base_url: str) -> bool:
        now_s = self._now_s()
        self._lost = {url: until_s for url, until_s in self._lost.items() if now_s < until_s}
        return base_url in self._lost

    async def _takes_connections(self, base_url: str) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._answers(base_url)
        except TimeoutError:
            return False

    async def _word_on(self, base_url: str) -> None:
        try:
            async with asyncio.timeout(_WORD_S):
                while not self._quarantine.knows_end_of(base_url):
                    await self._fleet.changed()
        except TimeoutError:
            pass


def _nothing() -> None:
    """There is no room to make."""
