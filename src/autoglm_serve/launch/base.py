"""What is asked of a launcher, whatever the machine: this one, or a cluster's.

A launcher starts a command at a placement and chooses the address that it listens on. It knows no engine and
no model. All that it started outlives this process, and is found again by `left`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

from autoglm_serve.core.plan import Placement
from autoglm_serve.engines.base import Command, Listen

NO_NOTE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended: a status or a signal; neither where nobody knows."""

    code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    """How often the kernel's out-of-memory killer struck among our processes while it ran."""


class Log(Protocol):
    """What a process prints."""

    @property
    def name(self) -> str:
        """Where a person finds it."""
        ...

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that were read, oldest first."""
        ...

    def read_new(self) -> tuple[str, ...]:
        """The lines that were completed since the last call. Blocks for nothing."""
        ...


class RunningProcess(Protocol):
    """A started engine. Its owner awaits `exited` and calls `close` after it."""

    @property
    def pid(self) -> int:
        """Its number on the machine that it runs on."""
        ...

    @property
    def listen(self) -> Listen:
        """The address that is its own until it is closed."""
        ...

    @property
    def log(self) -> Log: ...

    @property
    def listens(self) -> bool:
        """Nobody but this process, and what it started, listens at its address now."""
        ...

    async def exited(self) -> Exit:
        """Returns when it has ended, with how. A launcher that cannot be reached is no exit."""
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


class Left(Protocol):
    """A process that an earlier control plane started, and of which something still runs."""

    @property
    def id(self) -> str: ...

    @property
    def listen(self) -> Listen: ...

    @property
    def note(self) -> Mapping[str, str]:
        """What its owner wanted to find again."""
        ...

    def runs(self, command: Command) -> bool:
        """It was started by this command."""
        ...


LeftT = TypeVar("LeftT", bound=Left)


class Launcher(Protocol[LeftT]):
    """Where processes come from."""

    async def start(
        self,
        replica_id: str,
        command: Callable[[Listen], Command],
        placement: Placement,
        *,
        note: Mapping[str, str] = NO_NOTE,
        takes_unix: bool = False,
    ) -> RunningProcess:
        """The command for the address that was chosen, started. Raises OSError where that cannot be.

        One that `takes_unix` is given a unix socket, where the launcher has a place for one.
        """
        ...

    async def left(self) -> Sequence[LeftT]:
        """What an earlier control plane left running. Only the one control plane that there is may ask."""
        ...

    async def adopt(self, left: LeftT) -> RunningProcess | None:
        """Such a process as if it were started here; None if it has ended."""
        ...

    async def end(self, left: Iterable[LeftT]) -> None:
        """Ends some of what was left, and all that it started."""
        ...
