"""What the rest of the project may ask of an engine.

An adapter turns a plan into a command line, reads the engine's log, and interprets its exits. It starts
nothing and holds no state; `launch` runs the command and `control` keeps it alive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol, runtime_checkable

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitFacts, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to start: its argv, and what its environment has beyond ours."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Tells two commands apart without showing what is in them."""
        return sha256(repr((self.argv, sorted(self.env.items()))).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where a process listens, chosen by who starts it."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def flags(self) -> tuple[str, ...]:
        """As every server here takes it."""
        return ("--host", self.host, "--port", str(self.port))


class Engine(Protocol):
    """One kind of engine. Every method is a pure function of its arguments."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """The name as its makers write it."""
        ...

    @property
    def health_path(self) -> str:
        """GET here answers 200 once the model is loaded."""
        ...

    @property
    def continuation(self) -> Continuation:
        """How it takes the beginning of an answer that another replica could not finish."""
        ...

    @property
    def gives_finish(self) -> bool:
        """Each of its answers says how it ended, so that one that does not was cut off."""
        ...

    @property
    def start_timeout_s(self) -> float:
        """A start that shows no progress for this long is given up."""
        ...

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        """A replica of `member` at this placement, which listens there and nowhere else."""
        ...

    def progress(self, line: str) -> Progress | None:
        """What one log line says of the start, if anything."""
        ...

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        """Why it ended and what to do about it."""
        ...


@runtime_checkable
class MeasuringEngine(Engine, Protocol):
    """An engine whose log tells what its memory went to."""

    def measured(self, line: str) -> MeasuredLedger | None:
        """What one log line says of the memory taken, if anything."""
        ...

    def warning(self, line: str) -> str | None:
        """What a person should know of although the engine runs, in our words."""
        ...
