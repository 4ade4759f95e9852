"""What may be done to a service while it runs: restart its replicas, take over settings, leave it to another.

What is in force is held in `service.in_force` and replaced here alone, whatever asks for it. In which order
replicas are touched is decided in `control.fleet.rolling`; what the settings amount to, in `deploy`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from autoglm_serve.config.options import Options, declared
from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.rolling import Rolling
from autoglm_serve.control.fleet.undertaking import Tell, Undertaking
from autoglm_serve.control.workers.gateway_workers import GatewayWorkers
from autoglm_serve.core.errors import ServeError
from autoglm_serve.core.plan import Deployment
from autoglm_serve.deploy.decide import decide
from autoglm_serve.deploy.differ import Change, change_of, revise
from autoglm_serve.deploy.own_memory import Own, own_of
from autoglm_serve.deploy.remember import recall, remember
from autoglm_serve.service.in_force import InForce

log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.05


class Operator:
    """Does to a running service what a person asks for, one undertaking at a time."""

    def __init__(
        self,
        in_force: InForce,
        *,
        read_options: Callable[[], Options],
        rolling: Rolling,
        workers: GatewayWorkers,
        decided: Path,
        on_change: Callable[[], None],
    ) -> None:
        """`decided` is the file that tells the next control plane what runs; `on_change` is told when another
        deployment is in force."""
        self._in_force = in_force
        self._read_options = read_options
        self._rolling = rolling
        self._supervisor = rolling.supervisor
        self._workers = workers
        self._decided = decided
        self._on_change = on_change
        self.undertaking = Undertaking.none()
        """That goes on, or the last one."""
        self._changing = asyncio.Lock()
        """Of the settings: one change reads what the one before it has left in force."""
        self.asked_to_leave: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The process that takes over, once it has asked."""
        self._stopping = False

    @property
    def settings(self) -> Mapping[str, object]:
        """Every option by its name, as it holds now."""
        return {option.name: getattr(self._in_force.options, option.name) for option in declared()}

    def stop(self) -> None:
        """The service is being stopped: whatever goes on is given up, nothing new is begun."""
        self._stopping = True
        self.undertaking.stop()

    def restart(self, replicas: Sequence[str] | None, *, workers: bool) -> str:
        """Begin to restart these replicas (None: every one); why not, or nothing."""
        there = [status.id for status in self._supervisor.statuses()]
        unknown = [name for name in replicas or () if name not in there]
        if unknown:
            return f"There is no replica {', '.join(unknown)}. There are {', '.join(there)}."
        if self._busy:
            return "Another restart, or a change of the settings, is under way. Wait for its end."
        self._restart(there if replicas is None else replicas, workers=workers)
        return ""

    def leave(self, successor: int, until_s: float) -> str:
        """Leave everything that runs to this process; why not, or nothing."""
        if self._busy or self._stopping:
            return "It is stopping, or a restart or a change of the settings is under way."
        if time.monotonic() > until_s:
            return "It has heard of this too late: whoever asked has given up."
        if not self.asked_to_leave.done():
            log.warning("leaving everything that runs to another control plane (pid %d)", successor)
            loop = asyncio.get_running_loop()
            loop.call_later(_LAST_WORDS_S, self._leave_to, successor)
        return ""

    def stay(self) -> None:
        """Who was left everything to has ended; the next may ask."""
        self.asked_to_leave = asyncio.get_running_loop().create_future()

    async def follow(self, news: asyncio.Event) -> None:
        """Takes over what has changed in the settings whenever there is news, also while it does."""
        while True:
            await news.wait()
            news.clear()
            async with self._changing:
                await self._reload()

    @property
    def _busy(self) -> bool:
        return self.undertaking.good is None or self._changing.locked()

    def _leave_to(self, successor: int) -> None:
        if not self.asked_to_leave.done():
            self.asked_to_leave.set_result(successor)

    async def go_over_from_others(self) -> None:
        """What was taken over may have been decided by other options, and its workers run other code."""
        async with self._changing:
            if recall(self._decided, self._in_force.options) is None:
                await self._go_over_to_own_options()
        await self.renew_workers()

    async def renew_workers(self) -> None:
        await self.undertaking.ended()
        self._restart((), workers=True)

    def _restart(self, ids: Sequence[str], *, workers: bool) -> None:
        """Begin to restart these replicas, and then the gateway workers if asked to."""

        async def work(tell: Tell) -> bool:
            good = await self._rolling.restart(ids, self._drain_s, tell)
            return good and (not workers or await self._workers.renew(tell))

        self._undertake(work)

    def _undertake(self, work: Callable[[Tell], Awaitable[bool]]) -> None:
        self.undertaking = Undertaking()
        self.undertaking.begin(work)

    @property
    def _drain_s(self) -> float:
        return self._in_force.options.drain_timeout_s

    async def _reload(self) -> None:
        """What is wrong with the settings leaves everything as it is."""
        try:
            wanted = await asyncio.to_thread(self._read_options)
            change = change_of(self._in_force.options, wanted)
            after = await revise(self._in_force.deployment, change, self._own())
        except ServeError as error:
            log.error("the settings were not taken, everything stays as it is: %s", error)
            return
        for name in change.not_live:
            log.warning("%s cannot change while the service runs; stop it and start it again for that", name)
        if not change.live:
            log.info("nothing has changed in the settings that a running service can take")
            return
        log.info("the settings have changed: %s", ", ".join(change.live))
        await self._go_over(change, after)

    async def _go_over_to_own_options(self) -> None:
        try:
            after = await decide(self._in_force.options, lambda download: None, self._own())
        except ServeError as error:
            log.error("the new settings cannot be taken, those before are in force: %s", error)
            return
        names = ("the replicas",)
        change = Change(
            options=self._in_force.options, live=names, not_live=(), for_deployment=True, for_workers=False
        )
        await self._go_over(change, after)

    async def _go_over(self, change: Change, after: Deployment) -> None:
        """Make `after` what runs, or leave what ran before in force."""
        await self.undertaking.ended()
        before, options = self._in_force.deployment, self._in_force.options
        ran = self._supervisor.desired
        wanted = ran.revised(before, after)
        # A model that goes, or goes by another name, is known until its replicas are gone.
        names = {member.name for member in after.members}
        leaving = (member for member in before.members if member.name not in names)
        self._in_force.deployment = Deployment(members=(*after.members, *leaving))
        self._in_force.options = change.options
        problem = await self._bring_about(ran, wanted, workers=change.for_workers)
        self._in_force.deployment = before if problem else after
        self._in_force.options = options if problem else change.options
        self._on_change()
        if problem:
            log.error("the settings were not taken; those before are in force. %s", problem)
        else:
            log.info("the settings are in force")
            try:
                self.remember()
            except OSError as error:
                log.warning("a control plane that comes after this one will decide anew: %s", error)

    def remember(self) -> None:
        """What is in force, for the control plane that comes after this one. Raises OSError."""
        remember(self._decided, self._in_force.options, self._in_force.deployment)

    async def _bring_about(self, before: DesiredState, after: DesiredState, *, workers: bool) -> str:
        """Goes over to other replicas, and to new gateway workers; back again where that fails.

        Returns what went wrong; nothing where all went well.
        """
        problem: list[str] = []

        async def work(tell: Tell) -> bool:
            if not await self._rolling.conform(after, self._drain_s, tell):
                problem[:] = self.undertaking.lines[-1:]
                tell("going back to the settings before")
                await self._rolling.conform(before, self._drain_s, tell)
                return False
            good = not workers or await self._workers.renew(tell)
            problem[:] = self.undertaking.lines[-1:]
            return good

        self._undertake(work)
        return "" if await self.undertaking.ended() else next(iter(problem), "it was cut short")

    def _own(self) -> Own:
        """What runs now makes way for what comes."""
        pids = (status.pid for status in self._supervisor.statuses())
        return own_of((pid for pid in pids if pid is not None), self._in_force.deployment)
