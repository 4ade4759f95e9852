"""The fleet as one worker knows it now, and a way to wait for what comes next."""

import asyncio
from collections.abc import Callable

from autoglm_serve.core.fleet import FleetView


class FleetHolder:
    """The newest fleet view, and a way to wait for a newer one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.view = FleetView()
        self.listeners: tuple[Callable[[FleetView], None], ...] = ()
        """Told of every new view."""
        self._loop = loop
        self._changed: asyncio.Future[None] = loop.create_future()

    def replace(self, view: FleetView) -> None:
        self.view = view
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)
        for listener in self.listeners:
            listener(view)

    async def first_view(self) -> None:
        """Return once the control plane has said what there is."""
        while self.view.version == 0:
            await self.changed()

    async def changed(self) -> None:
        """Return at the next change."""
        await asyncio.shield(self._changed)
