"""What a gateway worker is told when it is started.

Whoever starts one needs this and nothing else of the gateway.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from autoglm_serve.gateway.access.doors import DoorPolicy
from autoglm_serve.gateway.admission.fields import FieldPolicy
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.routing.load import LOAD_FILE
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.tls import TlsFiles
from autoglm_serve.launch import handover
from autoglm_serve.launch.state_dir import ADMIN_SOCKET, CONTROL_SOCKET


class LoggedRequests(StrEnum):
    """Which requests are told of when they are over."""

    ALL = "all"
    ERRORS = "errors"  # those that had no answer, unless their client left
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """Where keys are."""

    files: tuple[Path, ...] = ()
    """Of the clients."""
    required: bool = False
    """Clients need one even if the files are gone."""
    upstream: Path | None = None
    """Holds the key that this service has at servers which it did not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A worker's share of the options."""

    version: str
    state_dir: Path
    worker_id: int
    """Its row in the load table and its file of counters: no two workers that live have the same."""
    workers: int
    """How many rows and files there are."""
    limits: ConnectionLimits
    media: MediaPolicy
    fields: FieldPolicy
    wait_ready_s: float
    """How long a request waits for a replica to become ready, while one may."""
    wait_turn_s: float
    """How long a request waits for its turn while every replica is at its capacity."""
    max_waiting: int
    """Requests that wait in one worker; one more is refused."""
    max_waiting_bytes: int
    """Of the bodies of those requests together."""
    stall_s: float
    """The least time without an event after which a stream's replica is given up."""
    request_timeout_s: float
    """The longest a request may take; 0 for no limit."""
    drain_timeout_s: float
    doors: DoorPolicy = field(default_factory=DoorPolicy)
    tls: TlsFiles | None = None
    """None: plain HTTP."""
    keys: KeySettings = field(default_factory=KeySettings)
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks that may say for whom they ask."""
    log_requests: LoggedRequests = LoggedRequests.ERRORS

    @property
    def control_socket(self) -> Path:
        """The control plane pushes the fleet view here."""
        return self.state_dir / CONTROL_SOCKET

    @property
    def handover_socket(self) -> Path:
        """Whoever may enter the state directory gets a copy of this worker's listening socket here."""
        return handover.path(self.state_dir, self.worker_id)

    @property
    def admin_socket(self) -> Path:
        """The control plane's admin API answers here."""
        return self.state_dir / ADMIN_SOCKET

    @property
    def load_path(self) -> Path:
        return self.state_dir / LOAD_FILE

    @property
    def counter_paths(self) -> tuple[Path, ...]:
        return tuple(self.state_dir / f"counters-{index}" for index in range(self.workers))
