"""A worker's end of the control channel: the fleet view and its changes come down it, messages go up, and
what only the control plane knows is asked of it.

Newline-delimited JSON on a unix socket. The worker goes on with the last view while the line is down, and
keeps trying: the gateway outlives the control plane. On every new line the whole view comes first, so that
whoever is out of step hangs up.
"""

import asyncio
import logging
import os
from pathlib import Path

from autoglm_serve.core import control_messages
from autoglm_serve.core.control_messages import (
    Joined,
    Leaving,
    RequestEnded,
    Serving,
    StatusAnswer,
    StatusQuestion,
    WakeModel,
    WorkerMessage,
)
from autoglm_serve.core.fleet import FleetChange, FleetView
from autoglm_serve.core.request_line import RequestLine
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.launch import unix_socket
from autoglm_serve.runtime.observable import Observable

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_LINE_LIMIT_BYTES = 1 << 22
_MOST_UNREAD_BYTES = 1 << 20
"""Lines about requests that the control plane has not read; what comes then is left out."""


class WorkerEnd:
    """One worker's end of the line."""

    def __init__(self, socket: Path, worker_id: int, fleet: Observable[FleetView]) -> None:
        self._address = unix_socket.address(socket)
        self._worker_id = worker_id
        self._fleet = fleet
        self._writer: asyncio.StreamWriter | None = None
        self._now: Serving | Leaving | None = None
        self._question: asyncio.Future[ServiceStatus | None] | None = None
        """Who asks meanwhile waits for the same answer."""

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            try:
                await self._session()
                log.warning("the control plane is gone; going on with the fleet as it was")
            except OSError:
                pass
            except (ValueError, TypeError) as error:  # cut off in the middle of a line
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

    def request_over(self, line: RequestLine) -> None:
        """Tell of a request. Left out while the line is down, or the control plane falls behind."""
        if self._writer is not None and self._writer.transport.get_write_buffer_size() < _MOST_UNREAD_BYTES:
            self._say(RequestEnded(request=line))

    async def status(self, timeout_s: float) -> ServiceStatus | None:
        """How the service is; None while the control plane is away, or answers too late."""
        if self._writer is None:
            return None
        if self._question is None:
            self._question = asyncio.get_running_loop().create_future()
            self._say(StatusQuestion())
        answered, _ = await asyncio.wait((self._question,), timeout=timeout_s)
        return answered.pop().result() if answered else None

    def _answered(self, status: ServiceStatus | None) -> None:
        question, self._question = self._question, None
        if question is not None:
            question.set_result(status)

    def _say(self, message: WorkerMessage | StatusQuestion) -> None:
        if self._writer is not None:
            self._writer.write(control_messages.encode_message(message) + b"\n")

    async def _session(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._address, limit=_LINE_LIMIT_BYTES)
        try:
            self._writer = writer
            self._say(Joined(worker_id=self._worker_id, pid=os.getpid()))
            if self._now is not None:
                self._say(self._now)
            async for line in reader:
                match news := control_messages.decode_news(line):
                    case StatusAnswer(status=status):
                        self._answered(status)
                    case FleetView():
                        self._fleet.replace(news)
                    case FleetChange():
                        self._fleet.replace(self._fleet.value.after(news))
        finally:
            self._writer = None
            self._answered(None)
            writer.close()
