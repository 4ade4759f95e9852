"""The control plane's end of the line to its gateway workers.

Every worker that connects gets the newest fleet view at once, and every change after it; before there is one
it gets nothing, because it may have outlived another control plane and serve by that one's last view. What
comes back are wishes to start a model that runs on demand, and the news that a worker takes connections.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import orjson

from autoglm_serve.core import fleet_codec
from autoglm_serve.core.fleet import FleetView
from autoglm_serve.launch import unix_socket

log = logging.getLogger(__name__)


class ControlPlaneEnd:
    """Owns the control socket and the view that was pushed last."""

    def __init__(
        self, socket: Path, on_wake: Callable[[str], None], on_serving: Callable[[int], None]
    ) -> None:
        self._socket = socket
        self._on_wake = on_wake
        self._on_serving = on_serving
        self._writers: set[asyncio.StreamWriter] = set()
        self._line = b""
        self.joined = asyncio.Event()
        """Set once a worker has connected."""

    def push(self, view: FleetView) -> None:
        """Tell every worker. A worker that is away gets it when it comes back."""
        self._line = fleet_codec.encode(view) + b"\n"
        for writer in self._writers:
            writer.write(self._line)

    async def run(self) -> None:
        """Serve the socket until cancelled."""
        server = await asyncio.start_unix_server(self._serve, sock=unix_socket.listener(self._socket))
        try:
            await server.serve_forever()
        finally:
            for writer in self._writers:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._line:
            writer.write(self._line)
        self._writers.add(writer)
        self.joined.set()
        try:
            async for line in reader:
                self._take(line)
        except OSError:
            pass  # the worker died; its supervisor knows
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, line: bytes) -> None:
        match orjson.loads(line):
            case {"wake": str(model)}:
                self._on_wake(model)
            case {"worker": int(index), "pid": int(pid)}:
                log.debug("gateway worker %d (pid %d) is on the line", index, pid)
            case {"serving": int(pid)}:
                self._on_serving(pid)
            case other:
                log.warning("a gateway worker said something unknown: %s", sorted(other))
