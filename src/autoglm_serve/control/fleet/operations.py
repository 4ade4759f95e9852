"""What may be done to a running service, one undertaking at a time, each told in steps."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.rolling import Rolling
from autoglm_serve.control.fleet.steps import Steps
from autoglm_serve.control.workers.gateway_workers import GatewayWorkers

log = logging.getLogger(__name__)


class Operations:
    """Owns the undertaking that goes on, if one does, and remembers the last."""

    def __init__(self, rolling: Rolling, workers: GatewayWorkers, drain_s: Callable[[], float]) -> None:
        self._rolling = rolling
        self._workers = workers
        self._drain_s = drain_s
        self._task: asyncio.Task[None] | None = None
        self.steps = Steps()
        self.steps.end(True)

    @property
    def busy(self) -> bool:
        return self.steps.good is None

    def restart(self, ids: Sequence[str], *, workers: bool) -> None:
        """Restarts these replicas, and then the gateway workers if asked to. Not while one is busy."""

        async def work(steps: Steps) -> bool:
            good = await self._rolling.restart(ids, self._drain_s(), steps.tell)
            return good and (not workers or await self._workers.renew(steps.tell))

        self._undertake(work)

    async def change(self, before: DesiredState, after: DesiredState, *, workers: bool) -> str:
        """Goes over to other replicas, and to new gateway workers; back again where that fails.

        Returns what went wrong; nothing where all went well.
        """
        why: list[str] = []

        async def work(steps: Steps) -> bool:
            if not await self._rolling.conform(after, self._drain_s(), steps.tell):
                why[:] = steps.lines[-1:]
                steps.tell("going back to the settings before")
                await self._rolling.conform(before, self._drain_s(), steps.tell)
                return False
            good = not workers or await self._workers.renew(steps.tell)
            why[:] = steps.lines[-1:]
            return good

        await self.wait_idle()
        self._undertake(work)
        await self.wait_idle()
        return "" if self.steps.good else next(iter(why), "it was cut short")

    async def wait_idle(self) -> None:
        """Returns when nothing goes on."""
        while self._task is not None and not self._task.done():
            await asyncio.wait((self._task,))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _undertake(self, work: Callable[[Steps], Awaitable[bool]]) -> None:
        self.steps = Steps(echo=log.info)
        self._task = asyncio.create_task(self._run(work, self.steps))

    async def _run(self, work: Callable[[Steps], Awaitable[bool]], steps: Steps) -> None:
        good = False
        try:
            good = await work(steps)
        except Exception:
            log.exception("a bug ended a change to the running service")
            steps.tell("it ended in a bug; the log has it")
        finally:
            steps.end(good)
