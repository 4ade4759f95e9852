"""Keeps one replica alive: a run, a diagnosis, a wait, the next run.

What follows from an event is in `lifecycle`, how long to wait in `backoff`, why it ended in the engine's
adapter; here they meet. Run by `supervisor`, one for each replica.
"""

import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.control.replica.intent import Intent, IntentCell
from autoglm_serve.control.replica.lifecycle import Event, after
from autoglm_serve.control.replica.process_run import ProcessRun
from autoglm_serve.control.replica.status_cell import StatusCell
from autoglm_serve.control.tasks import first_of, running
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
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.base import Exit, RunningProcess
from autoglm_serve.launch.ports import LOOPBACK
from autoglm_serve.plan.degrade import degraded

logger = logging.getLogger(__name__)

NO_PROCESS: Mapping[str, Any] = {
    "pid": None,
    "port": None,
    "base_url": "",
    "progress": None,
    "answers_to": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A process that an earlier control plane started, and that serves."""

    process: RunningProcess
    port: int


class ReplicaController:
    """One replica whose processes are ours."""

    def __init__(
        self,
        status: ReplicaStatus,
        member: Member,
        index: int,
        engine: Engine,
        effects: Effects,
        *,
        found: Found | None = None,
    ) -> None:
        """`found` is its process, where an earlier control plane left one that serves."""
        self.cell = StatusCell(status if found is None else _adopted(status, found), effects.on_change)
        self._member = member
        self._index = index
        self._engine = engine
        self._effects = effects
        self._intent = IntentCell(Intent.SLEEP if member.on_demand and found is None else Intent.RUN)
        self._run: ProcessRun | None = None
        self._crashes = 0
        self._was_ever_ready = False
        self._degraded = False
        """The one plan with less has been taken."""
        self._renewed = False
        self._lost: Loss | None = None
        self._command = engine.command(member, index, found.port) if found is not None else None
        """How the present process was started."""
        if found is not None:
            self._run = ProcessRun(
                found.process, engine, self.cell, effects, chats_as=_chats_as(member), ready=True
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
    def gone(self) -> bool:
        """It has no process."""
        return self.cell.status.pid is None

    @property
    def outdated(self) -> bool:
        """Its process is not what would be started now."""
        port = self.cell.status.port
        if port is None or self._command is None:
            return False
        return self._engine.command(self._member, self._index, port) != self._command

    def adapt(self, member: Member, engine: Engine) -> None:
        """What its next process is to be; the present one goes on."""
        self._member, self._engine, self._degraded = member, engine, False
        self.cell.note(model=member.name, engine=member.plan.engine)

    def renew(self, grace_s: float) -> None:
        """Stops the process and starts another at once; starts one where there is none but should be."""
        if self.cell.state in (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING):
            self._intent.make(Intent.RENEW, grace_s)
        elif self._intent.now is not Intent.SLEEP:
            self._intent.make(Intent.RUN)

    def drain(self) -> None:
        """A replica that serves goes on with what it has; any other has nothing to finish."""
        if self.cell.state is ReplicaState.READY:
            self.cell.move(Event.DRAIN)
            self._intent.make(Intent.DRAIN)
        elif self.cell.state is not ReplicaState.DRAINING:
            self.end(0.0)

    def end(self, grace_s: float) -> None:
        self._intent.make(Intent.END, grace_s)

    async def run(self) -> None:
        """Returns once it was told to end and its process is gone."""
        if self._run is not None:
            status = self.cell.status
            logger.info("%s: goes on with pid %s, port %s", status.id, status.pid, status.port)
            self._settle(self._run, await self._run.run(self._intent))
        while self._intent.now is not Intent.END:
            match self.cell.state:
                case ReplicaState.WAITING:
                    await self._wait_to_retry()
                case ReplicaState.STOPPED if self._intent.now is Intent.RUN:
                    await self._live()
                case _:
                    await self._intent.changed(self._intent.version)
                    self._leave_failure()
        if self.cell.state in (ReplicaState.WAITING, ReplicaState.FAILED):
            self.cell.move(Event.STOP, retry_in_s=None)

    def _leave_failure(self) -> None:
        """A failed replica that is put to sleep may be woken to a new try; one that is renewed gets it."""
        if self.cell.state is ReplicaState.FAILED and self._intent.now in (Intent.SLEEP, Intent.RUN):
            self.cell.move(Event.STOP)
            self._crashes = 0

    async def _wait_to_retry(self) -> None:
        """Starts again when the back-off is over, or not at all if that is not wanted any more."""
        delay_s = self.cell.status.retry_in_s or 0.0
        news = self._intent.changed(self._intent.version)
        async with running(self._effects.clock.sleep(delay_s), news) as tasks:
            await first_of(*tasks)
        if self._intent.now is Intent.RUN:
            await self._live()
        else:
            self.cell.move(Event.STOP, retry_in_s=None)

    async def _live(self) -> None:
        try:
            leased = self._effects.launcher.lease_port()
        except OSError as problem:
            self._cannot_start(problem)
            return
        with leased as lease:
            command = self._engine.command(self._member, self._index, lease.port)
            try:
                process = self._effects.launcher.start(self.cell.status.id, command, lease.port)
            except OSError as problem:
                self._cannot_start(problem)
                return
            self._announce(process, lease.port)
            self._command = command
            self._run = ProcessRun(
                process, self._engine, self.cell, self._effects, chats_as=_chats_as(self._member)
            )
            ended = await self._run.run(self._intent)
        self._settle(self._run, ended)

    def _announce(self, process: RunningProcess, port: int) -> None:
        status = self.cell.status
        again = status.state is ReplicaState.WAITING and not self._renewed
        self._renewed = False
        self.cell.move(
            Event.START,
            **_whereabouts(process, port),
            answers_to=self._member.names,
            restarts=status.restarts + again,
            progress=None,
            start_s=None,
            retry_in_s=None,
        )
        logger.info(
            "%s: %s of %s %s, pid %d, port %d",
            *(status.id, self._engine.title, status.model),
            *("started again" if again else "started", process.pid, port),
        )

    def _cannot_start(self, problem: OSError) -> None:
        self.cell.move(Event.START)
        missing = isinstance(problem, FileNotFoundError | PermissionError)
        diagnosis = Diagnosis(
            cause=ExitCause.ENGINE_MISSING if missing else ExitCause.UNKNOWN,
            summary=f"Its process cannot be started: {problem}",
            retryable=not missing,  # a disk that is full or a machine out of processes has better days
        )
        self._crashed(diagnosis, ready_for_s=0.0)

    def _settle(self, run: ProcessRun, ended: Exit) -> None:
        """What follows from an exit."""
        status = self.cell.status
        if status.state is ReplicaState.STOPPING and self._intent.now is Intent.RENEW and not run.stuck:
            self._renewed = True
            self._intent.make(Intent.RUN)
            self.cell.move(Event.RENEWED, retry_in_s=0.0, **NO_PROCESS)
            return
        if status.state in (ReplicaState.STOPPING, ReplicaState.DRAINING) and not run.stuck:
            self.cell.move(Event.ENDED, **NO_PROCESS)
            logger.info("%s: stopped", status.id)
            return
        self._was_ever_ready |= run.ready_at_s is not None
        if run.ready_at_s is not None:
            by_itself = not run.stuck and ended_by_itself(ended)
            self._lost = Loss(base_url=status.base_url, by_itself=by_itself)
        self._crashed(self._with_less(self._diagnosed(run, ended)), run.ready_for_s())

    def _with_less(self, diagnosis: Diagnosis) -> Diagnosis:
        """A start that cannot succeed as planned is tried once with less, or that is offered."""
        if diagnosis.retryable or self._was_ever_ready or self._degraded:
            return diagnosis
        less = degraded(self._member.plan, diagnosis.cause)
        if less is None:
            return diagnosis
        if not self._member.may_degrade:
            offer = f"{diagnosis.remedy} Or start with --degrade, which takes {less.reasons[0]}."
            return replace(diagnosis, remedy=offer.strip())
        self._degraded = True
        self._member = replace(self._member, plan=less)
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
        return self._engine.diagnose(facts)

    def _crashed(self, diagnosis: Diagnosis, ready_for_s: float) -> None:
        effects, status = self._effects, self.cell.status
        self._crashes = effects.back_off.crashes_after(self._crashes, ready_for_s)
        if diagnosis.retryable and self._crashes >= effects.patience.tries and not self._was_ever_ready:
            tries = f" It was started {self._crashes} times and never became ready."
            diagnosis = replace(diagnosis, summary=diagnosis.summary + tries, retryable=False)
        if not diagnosis.retryable:
            self.cell.move(Event.DOOMED, last_exit=diagnosis, lost=self._lost, **NO_PROCESS)
            logger.error("%s: failed. %s %s", status.id, diagnosis.summary, diagnosis.remedy)
            return
        delay_s = effects.back_off.delay_s(self._crashes, effects.rng.random())
        facts: Mapping[str, Any] = {**NO_PROCESS, "last_exit": diagnosis, "lost": self._lost}
        self.cell.move(Event.CRASHED, retry_in_s=delay_s, **facts)
        words = f"{diagnosis.summary} {diagnosis.remedy}".strip() if self._degraded else diagnosis.summary
        logger.warning("%s: %s Starting again in %.1f s.", status.id, words, delay_s)


def ended_by_itself(ended: Exit) -> bool:
    """Whether what it was asked may be why it ended; false for a signal that somebody sent. Pure."""
    if ended.code is not None:
        return ended.code not in _ASKED_TO_LEAVE
    if ended.signal in (None, signal.SIGKILL) and ended.oom_kills:
        return True
    return ended.signal is not None and ended.signal not in _SENT


_SENT = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_ASKED_TO_LEAVE = frozenset({0, 128 + signal.SIGINT, 128 + signal.SIGTERM})


def _whereabouts(process: RunningProcess, port: int) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "port": port,
        "base_url": f"http://{LOOPBACK}:{port}",
        "log_path": process.log_path,
    }


def _adopted(status: ReplicaStatus, found: Found) -> ReplicaStatus:
    return replace(
        status,
        state=after(status.state, Event.ADOPTED),
        progress=Progress(stage="ready", fraction=1.0),
        **_whereabouts(found.process, found.port),
    )


def _chats_as(member: Member) -> str | None:
    """The name to ask for a token; None where it is not made for chats, and its health path has to do."""
    return (member.upstream_model or member.name) if Capability.CHAT in member.capabilities else None
