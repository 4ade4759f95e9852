"""The open connections of clients to one worker."""

import asyncio
from typing import TYPE_CHECKING

from autoglm_serve.gateway.wire.held import Held
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.peers import site_of

if TYPE_CHECKING:
    from autoglm_serve.gateway.wire.client_connection import ClientConnection


class Connections(set["ClientConnection"]):
    """The open connections of a worker, and what it holds for them; `empty` is set while there are none."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.held = Held(most_bytes=limits.max_held_bytes, most_of_one_bytes=limits.max_client_bytes)
        self._resting: dict[ClientConnection, None] = {}
        """Those whose requests are all answered; the longest so first."""
        self._sites: dict[str, int] = {}
        self.empty = asyncio.Event()
        self.empty.set()

    def enter(self, connection: "ClientConnection") -> None:
        self.add(connection)
        self.empty.clear()

    def arrive(self, peer: str) -> str:
        """A connection comes from this address: the name that it is counted under."""
        site = site_of(peer)
        self._sites[site] = self._sites.get(site, 0) + 1
        return site

    def depart(self, site: str) -> None:
        """One that was counted there is gone."""
        left = self._sites.get(site, 0) - 1
        if left > 0:
            self._sites[site] = left
        else:
            self._sites.pop(site, None)

    def at(self, site: str) -> int:
        """How many there are of this one; none where nobody is counted."""
        return self._sites.get(site, 0)

    def rest(self, connection: "ClientConnection") -> None:
        """Its requests are all answered."""
        self._resting[connection] = None

    def stir(self, connection: "ClientConnection") -> None:
        """A request begins to arrive on it."""
        self._resting.pop(connection, None)

    def make_room(self) -> bool:
        """Close the connection whose last request was answered first, for one that may bring a request."""
        longest = next(iter(self._resting), None)
        if longest is None:
            return False
        self.stir(longest)
        longest.close()
        return True

    def leave(self, connection: "ClientConnection") -> None:
        self.discard(connection)
        self.stir(connection)
        if not self:
            self.empty.set()
