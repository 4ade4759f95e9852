"""A replica: one running engine process group, its state, and how it ended."""

from dataclasses import dataclass
from enum import StrEnum

from autoglm_serve.core.ledger import MeasuredLedger


class ReplicaState(StrEnum):
    """Where a replica is in its life. The legal moves are in `control.replica.lifecycle`."""

    STARTING = "starting"  # the process runs, its health path does not answer yet
    READY = "ready"  # requests may be sent
    DRAINING = "draining"  # no new requests; those in flight finish
    STOPPING = "stopping"  # told to exit
    WAITING = "waiting"  # exited; will be started again after a back-off
    FAILED = "failed"  # exited, and starting it again cannot help
    STOPPED = "stopped"  # exited because we asked; or not yet asked for


class ExitCause(StrEnum):
    """Why an engine process ended."""

    OUT_OF_MEMORY = "out_of_memory"
    PORT_TAKEN = "port_taken"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_UNREADABLE = "model_unreadable"
    ENGINE_MISSING = "engine_missing"
    BAD_FLAG = "bad_flag"
    DRIVER = "driver"
    COLLECTIVES = "collectives"
    KILLED = "killed"
    STUCK = "stuck"
    ASKED = "asked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitFacts:
    """What is known of an exit, before anybody interprets it."""

    code: int | None
    """Exit status; None where the process was not our child."""
    signal: int | None
    """The signal that ended it, if one did."""
    was_ready: bool
    """It had served before it ended."""
    log_tail: tuple[str, ...]
    """The last lines of its log, oldest first."""
    oom_kills: int = 0
    """How often the kernel's out-of-memory killer struck among our processes while it ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A process that served and is gone, without anybody here having asked it to go."""

    base_url: str
    """Where it listened."""
    by_itself: bool
    """It ended as what it was asked may make it end: an exit, a fault, or want of memory. Otherwise somebody
    ended it, or nobody knows how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """An exit, interpreted: the cause, the evidence, the remedy, and whether to try again."""

    cause: ExitCause
    summary: str
    """One sentence for a person."""
    remedy: str = ""
    """What to do next; empty where nothing needs doing."""
    retryable: bool = True
    """False where the same start can only end the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a start has come, read from the engine's own log."""

    stage: str
    """A word a person understands: loading, compiling, capturing, ready …"""
    fraction: float | None = None
    """0 to 1 where the engine tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica at one moment, as its supervisor knows it. Made anew on every change."""

    id: str
    """"r0", "r1" …: unique in the service, stable for its life."""
    slot: int
    model: str
    engine: str
    state: ReplicaState
    base_url: str = ""
    """http://host:port or unix:path; empty while it has none."""
    answers_to: tuple[str, ...] = ()
    """The names of the model that its process was started with; empty while it has none."""
    pid: int | None = None
    port: int | None = None
    """None where it listens on a unix socket."""
    gpus: tuple[int, ...] = ()
    restarts: int = 0
    """Starts that followed an exit nobody had asked for."""
    last_exit: Diagnosis | None = None
    """Why it last ended by itself."""
    lost: Loss | None = None
    """Its last process that was lost, for who had something to do with it."""
    progress: Progress | None = None
    """How far the present start has come."""
    start_s: float | None = None
    """Seconds from its last start to readiness; None before it was ready."""
    retry_in_s: float | None = None
    """While it waits: how long, from when it ended, until it is started again."""
    memory: MeasuredLedger | None = None
    """What its engine said of the GPU memory that it took, where it says that."""
    log: str = ""
    """Where a person finds what its process prints."""
