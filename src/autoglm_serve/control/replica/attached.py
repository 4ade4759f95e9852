"""Watches an address that somebody else keeps alive (`--engine external`): only its health is asked for."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.control.replica.health import Health
from autoglm_serve.control.replica.lifecycle import LifecycleEvent
from autoglm_serve.control.replica.status_cell import StatusCell, first_status
from autoglm_serve.core.replica import Diagnosis, ExitCause, ReplicaState, ReplicaStatus
from autoglm_serve.engines.base import Engine
from autoglm_serve.runtime.tasks import first_of, running

logger = logging.getLogger(__name__)

MODELS_PATH = "/v1/models"
LOST_AFTER = 2
"""Unanswered looks in a row after which nothing is sent there. It costs nobody a restart, so it is small."""


class AddressController:
    """One address."""

    def __init__(
        self, desired: DesiredReplica, engine: Engine, effects: Effects, on_change: Callable[[], None]
    ) -> None:
        status = replace(first_status(desired), base_url=desired.placement.address)
        self.cell = StatusCell(status)
        self.cell.listen(lambda status: on_change())
        self.desired = desired
        self.ours = self.outdated = False
        self.holds: frozenset[tuple[str, int]] = frozenset()
        self.log_tail: tuple[str, ...] = ()
        self._engine = engine
        self._effects = effects
        self._over = asyncio.Event()
        self._moved = 0

    @property
    def status(self) -> ReplicaStatus:
        return self.cell.value

    def adapt(self, desired: DesiredReplica, engine: Engine) -> None:
        self.desired, self._engine = desired, engine
        self.cell.note(model=desired.member.name)

    def renew(self, grace_s: float) -> None:
        """It is not ours to start."""

    def wake(self) -> None:
        """It is always awake."""

    def sleep(self, grace_s: float) -> None:
        """It is not ours to stop."""

    def drain(self) -> None:
        if self.cell.state is ReplicaState.READY:
            self.cell.move(LifecycleEvent.DRAIN)

    def end(self, grace_s: float) -> None:
        self._over.set()

    async def run(self) -> None:
        async with running(self._watch(), self._over.wait()) as tasks:
            await first_of(*tasks)
        self.cell.move(LifecycleEvent.STOP)
        if self.cell.state is ReplicaState.STOPPING:
            self.cell.move(LifecycleEvent.ENDED)

    async def _watch(self) -> None:
        patience, silences = self._effects.patience, 0
        self.cell.move(LifecycleEvent.START)
        while True:
            answers = await self._answers()
            answered = self._gets_on() or answers
            silences = 0 if answered else silences + 1
            match self.cell.state:
                case ReplicaState.STARTING if answered:
                    self._found()
                case ReplicaState.READY if silences >= LOST_AFTER:
                    self._lost()
                case _:
                    pass
            ready = self.cell.state is ReplicaState.READY
            await self._effects.clock.sleep(patience.ready_look_s if ready else patience.slowest_look_s)

    async def _answers(self) -> bool:
        """Not every server has this health path; every one lists its models, if only to those with a key."""
        url, timeout_s = self.cell.value.base_url, self._effects.patience.health_timeout_s
        answer = await self._effects.ask(url, self._engine.health_path, timeout_s=timeout_s)
        if answer is Health.ABSENT:
            answer = await self._effects.ask(url, MODELS_PATH, timeout_s=timeout_s)
        return answer in (Health.OK, Health.ABSENT)

    def _gets_on(self) -> bool:
        """It is ready, and its clients were brought something since the last look: that speaks for it."""
        before, self._moved = self._moved, self._effects.movement(self.cell.value.slot)
        return self.cell.state is ReplicaState.READY and self._moved != before

    def _found(self) -> None:
        self.cell.move(LifecycleEvent.ANSWERED)
        logger.info("%s: %s answers", self.cell.value.id, self.cell.value.base_url)

    def _lost(self) -> None:
        url = self.cell.value.base_url
        diagnosis = Diagnosis(
            cause=ExitCause.STUCK,
            summary=f"{url} does not answer.",
            remedy="Start the server behind it; it is used again as soon as it answers.",
        )
        logger.warning("%s: %s %s", self.cell.value.id, diagnosis.summary, diagnosis.remedy)
        self.cell.move(LifecycleEvent.CRASHED, last_exit=diagnosis)
        self.cell.move(LifecycleEvent.START, restarts=self.cell.value.restarts + 1)
