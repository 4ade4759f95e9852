"""Keeps one replica alive: a run, a diagnosis, a wait, the next run.

What follows from an event is in `lifecycle`, how long to wait in `backoff`, why it ended in the engine's
adapter; here they meet.
"""

import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.control.replica.intent import Intent, IntentCell
from autoglm_serve.control.replica.lifecycle import LifecycleEvent, after
from autoglm_serve.control.replica.process_run import ProcessRun
from autoglm_serve.control.replica.status_cell import StatusCell, first_status
from autoglm_serve.core.model import Capability
from autoglm_serve.core.plan import Member
from autoglm_serve.core.replica import (
    Diagnosis,
    ExitCause,
    ExitFacts,
    Loss,
    Progress,
    ReplicaState,
    ReplicaStatus,
)
from autoglm_serve.engines.base import Command, Engine, Listen
from autoglm_serve.launch.base import Exit, RunningProcess
from autoglm_serve.plan.degrade import degraded
from autoglm_serve.runtime.tasks import first_of, running

logger = logging.getLogger(__name__)

NO_PROCESS: Mapping[str, Any] = {
    "pid": None,
    "port": None,
    "base_url": "",
    "progress": None,
    "answers_to": (),
}


class ReplicaController:
    """One replica whose processes are ours."""

    def __init__(
        self,
        desired: DesiredReplica,
        engine: Engine,
        effects: Effects,
        on_change: Callable[[], None],
        *,
        found: RunningProcess | None = None,
    ) -> None:
        """`found` is its process, where an earlier control plane left one that serves."""
        status = first_status(desired)
        self.cell = StatusCell(status if found is None else _adopted(status, found))
        self.cell.listen(lambda status: on_change())
        self.desired = desired
        self.ours = True
        self._spec = desired.member
        """What is started: as desired, or with less."""
        self._engine = engine
        self._effects = effects
        self._intent = IntentCell(Intent.SLEEP if desired.member.on_demand and found is None else Intent.RUN)
        self._run: ProcessRun | None = None
        self._crashes = 0
        self._was_ever_ready = False
        self._degraded = False
        """The one plan with less has been taken."""
        self._renewed = False
        self._lost: Loss | None = None
        self._process_of = desired
        """What was desired as the present process was started, or its start failed."""
        self._command: Command | None = None
        """How the present process was started."""
        if found is not None:
            self._command = engine.command(desired.member, desired.placement, found.listen)
            self._run = ProcessRun(
                found, engine, self.cell, effects, chats_as=_chats_as(desired.member), ready=True
            )

    @property
    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the present run, or of the last one."""
        return self._run.log.lines if self._run is not None else ()

    def wake(self) -> None:
        if self._intent.now is Intent.SLEEP:
            self._intent.make(Intent.RUN)

    def sleep(self, grace_s: float) -> None:
        if self._intent.now is Intent.RUN:
            self._intent.make(Intent.SLEEP, grace_s)

    @property
    def status(self) -> ReplicaStatus:
        return self.cell.value

    @property
    def outdated(self) -> bool:
        """Its process is not what would be started now."""
        if self._intent.now is Intent.SLEEP:
            return False
        if self._process_of.generation != self.desired.generation:
            return True
        if self._run is None or self.cell.value.pid is None:
            return False
        return self._command_for(self._run.process.listen) != self._command

    @property
    def holds(self) -> frozenset[tuple[str, int]]:
        """The GPUs of its process, until nothing that it started is left."""
        if self._run is None or self._run.over:
            return frozenset()
        placement = self._process_of.placement
        return frozenset((placement.host, gpu) for gpu in placement.gpus)

    def adapt(self, desired: DesiredReplica, engine: Engine) -> None:
        """What its next process is to be; the present one goes on."""
        if desired.member != self.desired.member:
            self._spec, self._degraded = desired.member, False
        self.desired, self._engine = desired, engine
        self.cell.note(model=desired.member.name, engine=desired.member.plan.engine)

    def renew(self, grace_s: float) -> None:
        """Stops the process and starts another at once; starts one where there is none but should be."""
        if self.cell.state in (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING):
            self._intent.make(Intent.RENEW, grace_s)
        elif self._intent.now is not Intent.SLEEP:
            self._intent.make(Intent.RUN)

    def drain(self) -> None:
        """A replica that serves goes on with what it has; any other has nothing to finish."""
        if self.cell.state is ReplicaState.READY:
            self.cell.move(LifecycleEvent.DRAIN)
            self._intent.make(Intent.DRAIN)
        elif self.cell.state is not ReplicaState.DRAINING:
            self.end(0.0)

    def end(self, grace_s: float) -> None:
        self._intent.make(Intent.END, grace_s)

    async def run(self) -> None:
        """Returns once it was told to end and its process is gone."""
        if self._run is not None:
            status = self.cell.value
            logger.info("%s: goes on with pid %s at %s", status.id, status.pid, status.base_url)
            await self._see_through(self._run)
        while self._intent.now is not Intent.END:
            match self.cell.state:
                case ReplicaState.WAITING:
                    await self._wait_to_retry()
                case ReplicaState.STOPPED if self._intent.now is Intent.RUN:
                    await self._live()
                case _:
                    await self._intent.after(self._intent.value)
                    self._leave_failure()
        if self.cell.state in (ReplicaState.WAITING, ReplicaState.FAILED):
            self.cell.move(LifecycleEvent.STOP, retry_in_s=None)

    def _leave_failure(self) -> None:
        """A failed replica that is put to sleep may be woken to a new try; one that is renewed gets it."""
        if self.cell.state is ReplicaState.FAILED and self._intent.now in (Intent.SLEEP, Intent.RUN):
            self.cell.move(LifecycleEvent.STOP)
            self._crashes = 0

    async def _wait_to_retry(self) -> None:
        """Starts again when the back-off is over, or not at all if that is not wanted any more."""
        delay_s = self.cell.value.retry_in_s or 0.0
        news = self._intent.after(self._intent.value)
        async with running(self._effects.clock.sleep(delay_s), news) as tasks:
            await first_of(*tasks)
        if self._intent.now is Intent.RUN:
            await self._live()
        else:
            self.cell.move(LifecycleEvent.STOP, retry_in_s=None)

    async def _live(self) -> None:
        self._process_of = desired = self.desired
        try:
            process = await self._effects.launcher.start(
                desired.id,
                self._command_for,
                desired.placement,
                note=desired.note,
                takes_unix=self._engine.takes_unix,
            )
        except OSError as problem:
            self._cannot_start(problem)
            return
        self._announce(process)
        self._command = self._command_for(process.listen)
        self._run = ProcessRun(
            process, self._engine, self.cell, self._effects, chats_as=_chats_as(self._spec)
        )
        await self._see_through(self._run)

    async def _see_through(self, run: ProcessRun) -> None:
        """One process to its end. That one which served is gone is told at once: what it left behind takes a
        second to end where it has a GPU."""
        served = False
        try:
            ended = await run.run(self._intent)
            served = self.cell.state is ReplicaState.READY
            if served:
                self._settle(run, ended)
        finally:
            await run.bury()
        if not served:
            self._settle(run, ended)

    def _command_for(self, listen: Listen) -> Command:
        return self._engine.command(self._spec, self.desired.placement, listen)

    def _announce(self, process: RunningProcess) -> None:
        status = self.cell.value
        again = status.state is ReplicaState.WAITING and not self._renewed
        self._renewed = False
        self.cell.move(
            LifecycleEvent.START,
            **_whereabouts(process),
            answers_to=self._spec.names,
            gpus=self._process_of.placement.gpus,
            restarts=status.restarts + again,
            progress=None,
            start_s=None,
            retry_in_s=None,
        )
        logger.info(
            "%s: %s of %s %s, pid %d, at %s",
            *(status.id, self._engine.title, status.model),
            *("started again" if again else "started", process.pid, process.listen.url),
        )

    def _cannot_start(self, problem: OSError) -> None:
        self.cell.move(LifecycleEvent.START)
        missing = isinstance(problem, FileNotFoundError | PermissionError)
        diagnosis = Diagnosis(
            cause=ExitCause.ENGINE_MISSING if missing else ExitCause.UNKNOWN,
            summary=f"Its process cannot be started: {problem}",
            retryable=not missing,  # a disk that is full or a machine out of processes has better days
        )
        self._crashed(diagnosis, ready_for_s=0.0)

    def _settle(self, run: ProcessRun, ended: Exit) -> None:
        """What follows from an exit."""
        status = self.cell.value
        if status.state is ReplicaState.STOPPING and self._intent.now is Intent.RENEW and not run.stuck:
            self._renewed = True
            self._intent.make(Intent.RUN)
            self.cell.move(LifecycleEvent.RENEWED, retry_in_s=0.0, **NO_PROCESS)
            return
        if status.state in (ReplicaState.STOPPING, ReplicaState.DRAINING) and not run.stuck:
            self.cell.move(LifecycleEvent.ENDED, **NO_PROCESS)
            logger.info("%s: stopped", status.id)
            return
        self._was_ever_ready |= run.ready_at_s is not None
        diagnosis = self._diagnosed(run, ended)
        if run.ready_at_s is not None:
            by_itself = not run.stuck and ended_by_itself(ended, diagnosis.cause)
            self._lost = Loss(base_url=status.base_url, by_itself=by_itself)
        self._crashed(self._with_less(diagnosis), run.ready_for_s())

    def _with_less(self, diagnosis: Diagnosis) -> Diagnosis:
        """A start that cannot succeed as planned is tried once with less, or that is offered."""
        if diagnosis.retryable or self._was_ever_ready or self._degraded:
            return diagnosis
        less = degraded(self._spec.plan, diagnosis.cause)
        if less is None:
            return diagnosis
        if not self._spec.may_degrade:
            offer = f"{diagnosis.remedy} Or start with --degrade, which takes {less.reasons[0]}."
            return replace(diagnosis, remedy=offer.strip())
        self._degraded = True
        self._spec = replace(self._spec, plan=less)
        return replace(diagnosis, retryable=True, remedy=f"It is started again with {less.reasons[0]}.")

    def _diagnosed(self, run: ProcessRun, ended: Exit) -> Diagnosis:
        if run.stuck:
            return Diagnosis(cause=ExitCause.STUCK, summary=run.stuck)
        facts = ExitFacts(
            code=ended.code,
            signal=ended.signal,
            was_ready=run.ready_at_s is not None,
            log_tail=run.log.lines,
            oom_kills=ended.oom_kills,
        )
        diagnosis = self._engine.diagnose(facts)
        # What it wrote since it was ready may be a client's words: they doom nobody.
        return replace(diagnosis, retryable=diagnosis.retryable or facts.was_ready)

    def _crashed(self, diagnosis: Diagnosis, ready_for_s: float) -> None:
        effects, status = self._effects, self.cell.value
        self._crashes = effects.back_off.crashes_after(self._crashes, ready_for_s)
        if diagnosis.retryable and self._crashes >= effects.patience.tries and not self._was_ever_ready:
            tries = f" It was started {self._crashes} times and never became ready."
            diagnosis = replace(diagnosis, summary=diagnosis.summary + tries, retryable=False)
        if not diagnosis.retryable:
            self.cell.move(LifecycleEvent.DOOMED, last_exit=diagnosis, lost=self._lost, **NO_PROCESS)
            logger.error("%s: failed. %s %s", status.id, diagnosis.summary, diagnosis.remedy)
            return
        delay_s = effects.back_off.delay_s(self._crashes, effects.rng.random())
        facts: Mapping[str, Any] = {**NO_PROCESS, "last_exit": diagnosis, "lost": self._lost}
        self.cell.move(LifecycleEvent.CRASHED, retry_in_s=delay_s, **facts)
        words = f"{diagnosis.summary} {diagnosis.remedy}".strip() if self._degraded else diagnosis.summary
        logger.warning("%s: %s Starting again in %.1f s.", status.id, words, delay_s)


def ended_by_itself(ended: Exit, cause: ExitCause) -> bool:
    """Whether what it was asked may be why it ended; false for a signal that somebody sent. Pure.

    A status of 0 proves nothing, as vLLM ends with it when its engine core has died: there the cause decides.
    """
    if ended.code == 0:
        return cause is not ExitCause.ASKED
    if ended.code is not None:
        return ended.code not in _ASKED_TO_LEAVE
    if ended.signal in (None, signal.SIGKILL) and ended.oom_kills:
        return True
    return ended.signal is not None and ended.signal not in _SENT


_SENT = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_ASKED_TO_LEAVE = frozenset({128 + signal.SIGINT, 128 + signal.SIGTERM})


def _whereabouts(process: RunningProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "port": process.listen.port,
        "base_url": process.listen.url,
        "log": process.log.name,
    }


def _adopted(status: ReplicaStatus, found: RunningProcess) -> ReplicaStatus:
    return replace(
        status,
        state=after(status.state, LifecycleEvent.ADOPTED),
        progress=Progress(stage="ready", fraction=1.0),
        **_whereabouts(found),
    )


def _chats_as(member: Member) -> str | None:
    """The name to ask for a token; None where it is not made for chats, and its health path has to do."""
    return (member.upstream_model or member.name) if Capability.CHAT in member.capabilities else None
