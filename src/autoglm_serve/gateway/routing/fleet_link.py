"""A worker's end of the control channel: the fleet view and its changes come down it, messages go up.

Newline-delimited JSON on a unix socket. The worker goes on with the last view while the line is down, and
keeps trying: the gateway outlives the control plane. On every new line the whole view comes first, so that
whoever is out of step hangs up.
"""

import asyncio
import logging
import os
from pathlib import Path

from autoglm_serve.core import fleet_codec, worker_messages
from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.worker_messages import Joined, Leaving, Serving, WakeModel, WorkerMessage
from autoglm_serve.gateway.routing.fleet_holder import FleetHolder
from autoglm_serve.launch import unix_socket

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_LINE_LIMIT_BYTES = 1 << 22


class WorkerEnd:
    """One worker's end of the line."""

    def __init__(self, socket: Path, worker_id: int, fleet: FleetHolder) -> None:
        self._address = unix_socket.address(socket)
        self._worker_id = worker_id
        self._fleet = fleet
        self._writer: asyncio.StreamWriter | None = None
        self._now: Serving | Leaving | None = None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            try:
                await self._session()
                log.warning("the control plane is gone; going on with the fleet as it was")
            except OSError:
                pass
            except (ValueError, LookupError, TypeError) as error:  # cut off in the middle of a line
                log.warning("the control plane sent what is no fleet view: %r", error)
            await asyncio.sleep(_RETRY_S)

    def wake(self, model: str) -> None:
        """Ask for a model that runs on demand. Lost if the line is down; the request then times out."""
        self._say(WakeModel(model=model))

    def serving(self) -> None:
        """Connections are taken from now on; told to every control plane that there is."""
        self._now = Serving(pid=os.getpid())
        self._say(self._now)

    def leaving(self) -> None:
        """No more of them are taken; what is carried is finished."""
        self._now = Leaving(pid=os.getpid())
        self._say(self._now)

    def _say(self, message: WorkerMessage) -> None:
        if self._writer is not None:
            self._writer.write(worker_messages.encode(message) + b"\n")

    async def _session(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._address, limit=_LINE_LIMIT_BYTES)
        try:
            self._writer = writer
            self._say(Joined(worker_id=self._worker_id, pid=os.getpid()))
            if self._now is not None:
                self._say(self._now)
            async for line in reader:
                news = fleet_codec.decode(line)
                self._fleet.replace(news if isinstance(news, FleetView) else self._fleet.view.after(news))
        finally:
            self._writer = None
            writer.close()
