"""What `watch` asks of a launcher, whatever the machine: this one, or later a cluster's."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from autoglm_serve.engines.base import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended: a status or a signal; neither where it was not our child."""

    code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    """How often the kernel's out-of-memory killer struck among our processes while it ran."""


class RunningProcess(Protocol):
    """A started engine. Its owner awaits `exited` and calls `close` after it."""

    @property
    def pid(self) -> int: ...

    @property
    def log_path(self) -> Path: ...

    async def exited(self) -> Exit:
        """Returns when it has ended, with how."""
        ...

    async def end(self, grace_s: float) -> None:
        """Asks it to stop, waits so long, and leaves nothing of it alive."""
        ...

    def kill(self) -> None:
        """Ends it and all it started, at once and without waiting."""
        ...

    async def close(self) -> None:
        """After its exit: ends what it left behind and forgets it."""
        ...


class Lease(Protocol):
    """A port that is nobody else's inside the `with` block."""

    @property
    def port(self) -> int: ...

    def __enter__(self) -> "Lease": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Launcher(Protocol):
    """Where processes come from."""

    def lease_port(self) -> Lease: ...

    def start(self, replica_id: str, command: Command, port: int) -> RunningProcess:
        """Raises OSError where the process cannot be made."""
        ...
