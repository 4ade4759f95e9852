"""What may be done to a service while it runs: restart its replicas, take over settings, leave it to another.

Owns the settings and the deployment in force, which only a change through here replaces. In which order
replicas are touched is decided in `control.fleet.rolling`; what the settings amount to, in `deploy`.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from autoglm_serve.config.options import Options
from autoglm_serve.control.fleet.operations import Operations
from autoglm_serve.control.fleet.rolling import Rolling
from autoglm_serve.control.fleet.steps import Steps
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.workers.gateway_workers import GatewayWorkers
from autoglm_serve.core.errors import ExitCode, ServeError
from autoglm_serve.core.plan import Deployment
from autoglm_serve.deploy.decide import Change, change_of, decide, recall, remember, revise

log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.05


class Operator:
    """Does to a running service what a person asks for, one undertaking at a time."""

    def __init__(
        self,
        options: Options,
        deployment: Deployment,
        *,
        read_options: Callable[[], Options],
        supervisor: Supervisor,
        workers: GatewayWorkers,
        rolling: Rolling,
        decided: Path,
        on_change: Callable[[], None],
        last_act: Callable[[], None],
    ) -> None:
        """`decided` is the file that tells the next control plane what runs; `on_change` is told when another
        deployment is in force, `last_act` before this process vanishes."""
        self.options = options
        self.deployment = deployment
        self._read_options = read_options
        self._supervisor = supervisor
        self._workers = workers
        self._decided = decided
        self._on_change = on_change
        self._last_act = last_act
        self._operations = Operations(rolling, workers, lambda: self.options.drain_timeout_s)
        self._reloading: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def steps(self) -> Steps:
        """What the undertaking that goes on has told, or the last one."""
        return self._operations.steps

    def stop(self) -> None:
        """The service is being stopped: whatever goes on is given up, nothing new is begun."""
        self._stopping = True
        self._operations.stop()

    def restart(self, replicas: Sequence[str] | None, *, workers: bool) -> str:
        """Begin to restart these replicas (None: every one); why not, or nothing."""
        there = [status.id for status in self._supervisor.statuses()]
        unknown = [name for name in replicas or () if name not in there]
        if unknown:
            return f"There is no replica {', '.join(unknown)}. There are {', '.join(there)}."
        if self._operations.busy:
            return "Another restart, or a change of the settings, is under way. Wait for its end."
        self._operations.restart(there if replicas is None else replicas, workers=workers)
        return ""

    def leave(self) -> str:
        """End this process and nothing else; why not, or nothing."""
        if self._operations.busy or self._stopping:
            return "It is stopping, or a restart or a change of the settings is under way."
        log.warning("leaving everything that runs to another control plane")
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._vanish)
        return ""

    def reload(self) -> None:
        """Begin to take over what has changed in the settings; nothing happens while that goes on already."""
        if self._stopping:
            return
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload())

    async def go_over_from_others(self) -> None:
        """What was taken over may have been decided by other options, and its workers run other code."""
        if recall(self._decided, self.options) is None:
            await self._go_over_to_own_options()
        await self.renew_workers()

    async def renew_workers(self) -> None:
        await self._operations.wait_idle()
        self._operations.restart((), workers=True)

    async def _reload(self) -> None:
        """What is wrong with the settings leaves everything as it is."""
        try:
            wanted = await asyncio.to_thread(self._read_options)
            change = change_of(self.options, wanted)
            after = await revise(self.deployment, change)
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
            after = await decide(self.options, lambda download: None)
        except ServeError as error:
            log.error("the new settings cannot be taken, those before are in force: %s", error)
            return
        names = ("the replicas",)
        change = Change(options=self.options, live=names, not_live=(), for_deployment=True, for_workers=False)
        await self._go_over(change, after)

    async def _go_over(self, change: Change, after: Deployment) -> None:
        """Make `after` what runs, or leave what ran before in force."""
        before, options = self.deployment, self.options
        ran = self._supervisor.desired
        wanted = ran.revised(before, after)
        # A model that goes, or goes by another name, is known until its replicas are gone.
        names = {member.name for member in after.members}
        leaving = (member for member in before.members if member.name not in names)
        self.deployment = Deployment(members=(*after.members, *leaving))
        self.options = change.options
        problem = await self._operations.change(ran, wanted, workers=change.for_workers)
        self.deployment = before if problem else after
        self.options = options if problem else change.options
        self._on_change()
        if problem:
            log.error("the settings were not taken; those before are in force. %s", problem)
        else:
            log.info("the settings are in force")
            try:
                remember(self._decided, self.options, after)
            except OSError as error:
                log.warning("a control plane that comes after this one will decide anew: %s", error)

    def _vanish(self) -> None:
        """As a kill would, so that there is one way to follow this process and not two."""
        self._last_act()
        os._exit(ExitCode.OK)
