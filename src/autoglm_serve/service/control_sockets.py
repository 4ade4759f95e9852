"""The two sockets in the state directory by which workers and persons reach the control plane.

They are made again where somebody deletes them, or the whole directory, under a running service. Knows
nothing of what is said through them.
"""

import asyncio
import logging
from collections.abc import Callable

from autoglm_serve.control.workers.control_channel import ControlPlaneEnd
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.gateway.routing.load import LOAD_FILE
from autoglm_serve.launch import admin_token
from autoglm_serve.launch.state_dir import ADMIN_SOCKET, CONTROL_SOCKET, StateDir
from autoglm_serve.runtime.clock import Clock
from autoglm_serve.runtime.tasks import first_of, running
from autoglm_serve.service.change import Operator

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class ControlSockets:
    """Open while `answer` runs."""

    def __init__(
        self,
        lock: StateDir,
        channel: ControlPlaneEnd,
        operator: Operator,
        status: Callable[[], ServiceStatus],
        clock: Clock,
    ) -> None:
        self._lock = lock
        self._channel = channel
        self._operator = operator
        self._status = status
        self._clock = clock

    async def answer(self) -> int:
        """Workers and persons, until another control plane is to: its pid."""
        from autoglm_serve.observe import admin  # here: web code is read while engines start, not before

        asked_to_leave = self._operator.asked_to_leave
        while not asked_to_leave.done():
            try:
                async with running(
                    self._channel.run(),
                    admin.serve(self._lock.path / ADMIN_SOCKET, self._status, self._operator),
                    _done(asked_to_leave),
                    self._lost(),
                ) as doors:
                    await first_of(*doors)
            except OSError as problem:  # the folder went while the doors were made
                log.error("the control plane has no sockets: %s", problem.strerror or problem)
            if not asked_to_leave.done():
                await self._clock.sleep(_LOOK_S)
                self._make_again()
        return asked_to_leave.result()

    async def _lost(self) -> None:
        """Returns when somebody has deleted the state directory, or a door or the lock in it."""
        doors = (self._lock.path / CONTROL_SOCKET, self._lock.path / ADMIN_SOCKET)
        while self._lock.intact and all(door.exists() for door in doors):
            await self._clock.sleep(_LOOK_S)

    def _make_again(self) -> None:
        """Records come back by themselves. Files that processes share by mapping them cannot."""
        path = self._lock.path
        shared = (path / LOAD_FILE).exists()
        try:
            other = None if self._lock.intact else self._lock.make_again()
            if other is None:
                self._operator.remember()
                admin_token.ensure(path)
        except OSError as problem:
            log.error("the state directory %s was deleted, and cannot be made: %s", path, problem)
            return
        if other is not None:
            told = (path, other)
            log.error("%s was deleted, and another service (pid %d) has begun in it: stop one of them", *told)
            return
        more = "" if shared else "; counters begin anew, and what is in flight is not summed until a restart"
        log.error("in %s something was deleted under this service; it is made again%s", path, more)


async def _done(future: "asyncio.Future[int]") -> None:
    await asyncio.shield(future)
