"""A worker's line to the control plane: fleet views come down it, wishes to wake a model go up.

Newline-delimited JSON on a unix socket. The worker goes on with the last view while the line is down, and
keeps trying: the gateway outlives the control plane.
"""

import asyncio
import logging
import os
from pathlib import Path

import orjson

from autoglm_serve.core import fleet_codec
from autoglm_serve.gateway.routing.fleet_holder import FleetHolder
from autoglm_serve.launch import unix_socket

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_LINE_LIMIT_BYTES = 1 << 22


class WorkerEnd:
    """One worker's end of the line."""

    def __init__(self, socket: Path, index: int, fleet: FleetHolder) -> None:
        self._address = unix_socket.address(socket)
        self._index = index
        self._fleet = fleet
        self._writer: asyncio.StreamWriter | None = None
        self._serving = False

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
        if self._writer is not None:
            self._writer.write(orjson.dumps({"wake": model}) + b"\n")

    def serving(self) -> None:
        """Connections are taken from now on; told to every control plane that there is."""
        self._serving = True
        self._say_serving()

    def _say_serving(self) -> None:
        if self._serving and self._writer is not None:
            self._writer.write(orjson.dumps({"serving": os.getpid()}) + b"\n")

    async def _session(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._address, limit=_LINE_LIMIT_BYTES)
        try:
            writer.write(orjson.dumps({"worker": self._index, "pid": os.getpid()}) + b"\n")
            self._writer = writer
            self._say_serving()
            async for line in reader:
                self._fleet.replace(fleet_codec.decode(line))
        finally:
            self._writer = None
            writer.close()
