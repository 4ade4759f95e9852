"""What the checks look at: the machine, what was asked of it, and a service where one runs. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoglm_serve.core.errors import ServeError
from autoglm_serve.core.hardware import Hardware
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.probe.gpus import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that a service writes to."""

    path: Path
    free_bytes: int
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFacts:
    """Where models are downloaded from."""

    title: str
    offline: bool = False
    """The environment says not to ask it."""
    unreachable: str = ""
    """Why it did not answer; empty where it did, or was not asked."""
    model_cached: bool = True
    """What is to be served is on this machine already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This machine."""

    gpus: Snapshot
    hardware: Hardware
    accelerator: str = ""
    """One that engines here do not run on: AMD, Apple, Ascend."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Version by name, of those engines that are installed."""
    environ: Mapping[str, str] = field(default_factory=dict)
    cores: int
    memory_bytes: int
    memory_free_bytes: int
    shm_bytes: int | None
    """Size of /dev/shm; None where there is none."""
    descriptors: int
    """Hard limit of open files."""
    cache: Folder
    state: Folder
    hub: HubFacts
    port: int
    port_holder: str = ""
    """Who listens there; empty where nobody does, or where it is our own service."""
    model_problem: ServeError | None = None
    """Why the model that is asked for can't be read; None where it can, or none was named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTiming:
    """When the pieces of one streamed answer came, in seconds from when it was asked for."""

    pieces_s: tuple[float, ...]

    @property
    def first_s(self) -> float:
        return self.pieces_s[0]

    @property
    def spread_s(self) -> float:
        return self.pieces_s[-1] - self.pieces_s[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """A service that was asked how it is."""

    url: str
    unreachable: str = ""
    """Why it did not answer; the rest is empty then."""
    status: ServiceStatus | None = None
    """None where its admin API is not open to us: then it is seen from outside alone."""
    models: tuple[str, ...] = ()
    stream: StreamTiming | None = None
    stream_problem: str = ""
    clock_ahead_s: float | None = None
    """Its clock against ours, by the Date of an answer; None where it sends none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    host: HostFacts | None
    """None where another machine's service is looked at."""
    service: ServiceFacts | None
