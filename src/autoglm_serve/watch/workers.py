"""Keeps the gateway workers alive: one process per listening socket, started again when it ends.

The socket stays open here while a worker is away, so connections wait for its successor instead of being
refused. Knows nothing of HTTP or fleets.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Sequence

from autoglm_serve.engines.base import Command
from autoglm_serve.launch.base import Exit
from autoglm_serve.launch.local import LISTENER, LocalLauncher, LocalProcess
from autoglm_serve.watch.backoff import BackOff
from autoglm_serve.watch.clock import Clock

log = logging.getLogger(__name__)

_BACK_OFF = BackOff(first_s=0.05, most_s=5.0, stable_s=10.0)


class GatewayWorkers:
    """Owns the worker processes and their sockets."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        command: Callable[[int, int], Command],
        *,
        launcher: LocalLauncher,
        clock: Clock,
    ) -> None:
        """`command(index, descriptor)` is worker `index`, which inherits its socket as `descriptor`."""
        self._listeners = listeners
        self._command = command
        self._launcher = launcher
        self._clock = clock
        self._processes: dict[int, LocalProcess] = {}
        self._stopping = False
        self.restarts = 0

    async def run(self) -> None:
        """Returns when every worker has ended after `drain`."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._listeners)):
                group.create_task(self._keep(index))

    async def drain(self, grace_s: float) -> None:
        """Let every worker finish what it has, for `grace_s` at most; nothing new is accepted."""
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        async with asyncio.TaskGroup() as group:
            for process in self._processes.values():
                group.create_task(process.end(grace_s))

    async def _keep(self, index: int) -> None:
        crashes = 0
        while not self._stopping:
            started_s = self._clock.now_s()
            how = await self._run_once(index)
            if self._stopping:
                return
            self.restarts += 1
            crashes = _BACK_OFF.crashes_after(crashes, self._clock.now_s() - started_s)
            log.warning("gateway worker %d ended (%s); starting it again", index, _said(how))
            await self._clock.sleep(_BACK_OFF.delay_s(crashes, random.random()))

    async def _run_once(self, index: int) -> Exit:
        listener = self._listeners[index]
        process = self._launcher.start(
            f"gateway-{index}",
            self._command(index, LISTENER),
            listener.getsockname()[1],
            listener=listener.fileno(),
        )
        self._processes[index] = process
        try:
            return await process.exited()
        finally:
            del self._processes[index]
            await process.close()


def _said(how: Exit) -> str:
    return f"signal {how.signal}" if how.signal else f"status {how.code}"
