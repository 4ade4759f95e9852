"""A launcher without processes: a test says when they end and what they print."""

import asyncio
from itertools import count
from pathlib import Path
from types import TracebackType

from autoglm_serve.control.clock import Clock
from autoglm_serve.engines.base import Command
from autoglm_serve.launch.base import Exit


class FakeProcess:
    """Ends when told to by the test, or when it is asked to stop and obeys."""

    def __init__(self, pid: int, command: Command, log_path: Path, clock: Clock, *, obeys: bool) -> None:
        self.pid = pid
        self.command = command
        self.log_path = log_path
        self.graces_s: list[float] = []
        """The grace of each request to stop."""
        self.closed = False
        self.mortal = True
        """SIGKILL ends it."""
        self._clock = clock
        self._obeys = obeys
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def leave(self, *, code: int | None = None, signal: int | None = None) -> None:
        if not self._exit.done():
            self._exit.set_result(Exit(code=code, signal=signal))

    def say(self, *lines: str) -> None:
        with self.log_path.open("a") as log:
            log.writelines(f"{line}\n" for line in lines)

    async def exited(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def end(self, grace_s: float) -> None:
        self.graces_s.append(grace_s)
        if self._obeys:
            self.leave(code=0)
        elif grace_s:
            await self._clock.sleep(grace_s)
        if self.mortal:
            self.leave(signal=9)

    def kill(self) -> None:
        self.leave(signal=9)

    async def close(self) -> None:
        self.closed = True


class FakeLease:
    def __init__(self, port: int) -> None:
        self.port = port
        self.held = False

    def __enter__(self) -> "FakeLease":
        self.held = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held = False


class FakeLauncher:
    """Remembers everything it started, oldest first."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.started: list[FakeProcess] = []
        self.leases: list[FakeLease] = []
        self.obeys = True
        """Whether processes end when they are asked to."""
        self.broken: OSError | None = None
        """Raised by the next starts."""
        self.no_port: OSError | None = None
        """Raised by the next leases."""
        self._folder = folder
        self._clock = clock
        self._pids = count(101)

    def lease_port(self) -> FakeLease:
        if self.no_port is not None:
            raise self.no_port
        self.leases.append(FakeLease(20_000 + len(self.leases)))
        return self.leases[-1]

    def start(self, replica_id: str, command: Command, port: int) -> FakeProcess:
        if self.broken is not None:
            raise self.broken
        number = len(self.started)
        log_path = self._folder / f"{replica_id}.{number}.log"
        process = FakeProcess(next(self._pids), command, log_path, self._clock, obeys=self.obeys)
        self.started.append(process)
        return process
