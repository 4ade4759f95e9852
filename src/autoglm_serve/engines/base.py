"""What the rest of the project may ask of an engine.

An adapter turns a plan into a command line, reads the engine's log, and interprets its exits. It starts
nothing and holds no state; `launch` runs the command and `control` keeps it alive.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from autoglm_serve.core.engine_traits import EngineTraits
from autoglm_serve.core.fleet import Continuation
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.model import Feature
from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitFacts, Progress

ANY_WORK = re.compile(rb"^(?:vllm|sglang|llamacpp)[:_]\S*(?:tokens|decode)\S*_total.*$", re.MULTILINE)
"""Lines of /metrics that change with the work of whichever engine answers, where nobody says which it is."""


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
    """Where a process listens, chosen by who starts it: a unix socket, or a port of a host."""

    host: str = ""
    port: int | None = None
    path: Path | None = None
    """A socket in a folder that no other account may enter; then it has neither host nor port."""

    @property
    def url(self) -> str:
        """http://HOST:PORT or unix:PATH, as the gateway and the probes take it."""
        return f"unix:{self.path}" if self.path else f"http://{self.host}:{self.port}"

    @property
    def flags(self) -> tuple[str, ...]:
        """As every server here takes it."""
        if self.path is not None:
            return ("--uds", str(self.path))
        return ("--host", self.host, "--port", str(self.port))


class Place(StrEnum):
    """What an engine runs on, which decides who plans for it."""

    PROCESSOR = "processor"
    GPUS = "gpus"
    ELSEWHERE = "elsewhere"  # somebody else runs it: there is nothing to plan or to start


class Engine(ABC):
    """One kind of engine: what it is called, how it is started, what it says. Everything that is asked of an
    engine is asked here, so that another one is one file. It has no state, and every method is pure.
    """

    name: str
    """In plans, statuses and metrics."""
    title: str
    """As its makers write it."""
    option: str | None = None
    """What --engine calls it; None where nobody asks for it by name."""
    package: str | None = None
    """The Python distribution that it comes in, where it comes in one."""
    owned_by: str | None = None
    """What its /v1/models says of who owns a model, by which an address that runs it is known."""
    place: Place = Place.PROCESSOR
    health_path: str = "/health"
    """GET here answers 200 once the model is loaded."""
    continuation: Continuation = Continuation.NONE
    """How it takes the beginning of an answer that another replica could not finish."""
    gives_finish: bool = True
    """Each of its answers says how it ended, so that one that does not was cut off."""
    undone: frozenset[Feature] = frozenset(
        {Feature.OTHER_ROLES, Feature.BUILT_IN_TOOLS, Feature.SPOKEN_ANSWER, Feature.EXIF_TURNS}
    )
    """What it does not do, or passes over in a request and answers with 200: it is refused before the engine
    is asked, or done for it (`core.model.MADE_READABLE`)."""
    takes_unix: bool = False
    """It can listen on a unix socket (`--uds PATH`), where no other account of the machine reaches it."""
    takes_key: bool = False
    """A client's Authorization is meant for it and is passed on."""
    start_timeout_s: float = 600.0
    """A start that shows no progress for this long is given up."""
    work_metric: re.Pattern[bytes] = ANY_WORK
    """Lines of its /metrics that change whenever it has worked on tokens."""
    variables: tuple[str, ...] = ()
    """What the environment variables begin with that it reads as its settings."""

    @abstractmethod
    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        """A replica of `member` at this placement, which listens there and nowhere else."""

    def progress(self, line: str) -> Progress | None:
        """What one log line says of the start, if anything."""
        return None

    @abstractmethod
    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        """Why it ended and what to do about it."""

    def traits(self, version: str | None) -> EngineTraits | None:
        """How a version of it (None: the newest known) sizes its memory; None: no GPUs are planned for it."""
        return None

    def too_old(self, version: str) -> str:
        """What to install instead, where this version is older than any that is known; nothing where not."""
        return ""

    def holes(self, version: str) -> tuple[str, ...]:
        """Published holes of this version that a request can reach though it passes the gateway."""
        return ()

    def measured(self, line: str) -> MeasuredLedger | None:
        """What one log line says of the memory taken, if anything."""
        return None

    def warning(self, line: str) -> str | None:
        """What a person should know of although the engine runs, in our words."""
        return None
