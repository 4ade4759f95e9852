"""The faulty engine as an `Engine`, so that the supervisor can run it.

    FaultyAdapter(flags=("--sigterm", "ignore"))

`engine_args` of a member's plan are passed on behind the flags.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts, Progress
from autoglm_serve.engines.base import Command, Engine, Listen

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class FaultyAdapter(Engine):
    """A line "fatal: …" in its log means that another start cannot help."""

    flags: tuple[str, ...] = ()
    start_timeout_s: float = 20.0
    name: str = "faulty"
    title: str = "the faulty engine"
    health_path: str = "/health"
    continuation: Continuation = Continuation.PREFILL
    gives_finish: bool = True
    takes_unix: bool = True

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        return Command(
            argv=(
                *(sys.executable, "-m", "tests.fakes.faulty_engine"),
                *listen.flags,
                *("--models", member.name),
                *self.flags,
                *member.plan.engine_args,
            ),
            env={"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}"},
        )

    def progress(self, line: str) -> Progress | None:
        return Progress(stage=line.removeprefix("stage: ")) if line.startswith("stage: ") else None

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        fatal = next((line for line in facts.log_tail if line.startswith("fatal: ")), None)
        if fatal is not None:
            summary = fatal.removeprefix("fatal: ")
            return Diagnosis(cause=ExitCause.MODEL_UNREADABLE, summary=summary, retryable=False)
        if facts.signal is not None:
            return Diagnosis(cause=ExitCause.KILLED, summary=f"It was ended by signal {facts.signal}.")
        return Diagnosis(cause=ExitCause.UNKNOWN, summary=f"It left with status {facts.code}.")


def faulty_member(replicas: int = 1, *, on_demand: bool = False, engine_args: tuple[str, ...] = ()) -> Member:
    """A member that the faulty engine runs."""
    return Member(
        names=("faulty-model",),
        files=ModelFiles(reference="faulty", format=ModelFormat.REMOTE),
        plan=Plan(engine="faulty", placements=(Placement(),) * replicas, engine_args=engine_args),
        on_demand=on_demand,
    )
