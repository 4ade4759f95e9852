"""The control plane's end of the line to its gateway workers.

Every worker that connects gets the newest fleet view at once, and then what changes in it, not the whole
again; before there is one it gets nothing, because it may have outlived another control plane and serve by
that one's last view. What else is said, and what comes back, is in `core.control_messages`.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from autoglm_serve.core import control_messages
from autoglm_serve.core.control_messages import (
    News,
    StatusAnswer,
    StatusQuestion,
    UnknownMessage,
    WorkerMessage,
)
from autoglm_serve.core.fleet import FleetView, change_between
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.launch import unix_socket

log = logging.getLogger(__name__)


class ControlPlaneEnd:
    """Owns the control socket and the view that was pushed last."""

    def __init__(
        self, socket: Path, on_message: Callable[[WorkerMessage], None], status: Callable[[], ServiceStatus]
    ) -> None:
        """`status` is asked when a worker asks; every other message goes to `on_message`."""
        self._socket = socket
        self._on_message = on_message
        self._status = status
        self._writers: set[asyncio.StreamWriter] = set()
        self._view: FleetView | None = None
        self.joined = asyncio.Event()
        """Set once a worker has connected."""

    def push(self, view: FleetView) -> None:
        """Tell every worker what has changed. A worker that is away gets the view when it comes back."""
        before, self._view = self._view, view
        if self._writers:
            change = change_between(before, view) if before is not None else None
            line = _line(change or view)
            for writer in self._writers:
                writer.write(line)

    async def run(self) -> None:
        """Serve the socket until cancelled."""
        server = await asyncio.start_unix_server(self._serve, sock=unix_socket.listener(self._socket))
        try:
            await server.serve_forever()
        finally:
            for writer in self._writers:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._view is not None:
            writer.write(_line(self._view))
        self._writers.add(writer)
        self.joined.set()
        try:
            async for line in reader:
                self._take(line, writer)
        except OSError:
            pass  # the worker died; its supervisor knows
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            message = control_messages.decode_message(line)
        except UnknownMessage as problem:
            log.warning("%s", problem)
            return
        if isinstance(message, StatusQuestion):
            writer.write(_line(StatusAnswer(status=self._status())))
        else:
            self._on_message(message)


def _line(news: News) -> bytes:
    return control_messages.encode_news(news) + b"\n"
