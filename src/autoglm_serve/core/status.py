"""How a service is, as one value: what the admin API says, and every screen shows."""

from dataclasses import dataclass, field

from autoglm_serve.core.ledger import Ledger, MeasuredLedger, Predicted
from autoglm_serve.core.replica import Diagnosis, Progress, ReplicaState


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """One model."""

    names: tuple[str, ...]
    reference: str = ""
    plan: tuple[str, ...] = ()
    """Why it runs as it does."""
    ledger: Ledger | None = None
    predicted: Predicted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """One replica."""

    id: str
    model: str
    engine: str
    state: ReplicaState
    pid: int | None = None
    port: int | None = None
    address: str = ""
    """http://host:port or unix:path; empty while it has none."""
    gpus: tuple[int, ...] = ()
    in_flight: int = 0
    """Requests that it carries."""
    restarts: int = 0
    start_s: float | None = None
    """Seconds from its last start to readiness; None where it was not ready, or not started here."""
    last_exit: Diagnosis | None = None
    progress: Progress | None = None
    memory: MeasuredLedger | None = None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReport:
    """The gateway's workers."""

    workers: int = 0
    serving: int = 0
    """Of those, that take connections."""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """Everything."""

    url: str
    version: str
    models: tuple[ModelReport, ...] = ()
    replicas: tuple[ReplicaReport, ...] = ()
    gateway: GatewayReport = field(default_factory=GatewayReport)
