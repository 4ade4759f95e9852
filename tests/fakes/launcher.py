"""A launcher without processes: a test says when they end and what they print."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path

from autoglm_serve.core.plan import Placement
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.launch.base import NO_NOTE, Exit
from autoglm_serve.launch.log_tail import LogTail
from autoglm_serve.launch.records import ReplicaRecord
from autoglm_serve.runtime.clock import Clock


class FakeProcess:
    """Ends when told to by the test, or when it is asked to stop and obeys."""

    def __init__(
        self, pid: int, command: Command, listen: Listen, log_path: Path, clock: Clock, *, obeys: bool
    ) -> None:
        self.pid = pid
        self.command = command
        self.listen = listen
        self.log = LogTail(log_path)
        self.log_path = log_path
        self.graces_s: list[float] = []
        """The grace of each request to stop."""
        self.closed = False
        self.listens = True
        self.mortal = True
        """SIGKILL ends it."""
        self.burial_s = 0.0
        """What it leaves behind takes so long to end."""
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
        if self.burial_s:
            await self._clock.sleep(self.burial_s)
        self.closed = True


class FakeLauncher:
    """Remembers everything it started, oldest first."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.started: list[FakeProcess] = []
        self.obeys = True
        """Whether processes end when they are asked to."""
        self.broken: OSError | None = None
        """Raised by the next starts."""
        self._folder = folder
        self._clock = clock
        self._pids = count(101)

    async def start(
        self,
        replica_id: str,
        command: Callable[[Listen], Command],
        placement: Placement,
        *,
        note: Mapping[str, str] = NO_NOTE,
        takes_unix: bool = False,
    ) -> FakeProcess:
        if self.broken is not None:
            raise self.broken
        number = len(self.started)
        log_path = self._folder / f"{replica_id}.{number}.log"
        listen = Listen(host="127.0.0.1", port=20_000 + number)
        process = FakeProcess(
            next(self._pids), command(listen), listen, log_path, self._clock, obeys=self.obeys
        )
        self.started.append(process)
        return process

    async def left(self) -> tuple[ReplicaRecord, ...]:
        return ()

    async def adopt(self, left: ReplicaRecord) -> None:
        return None

    async def end(self, left: Iterable[ReplicaRecord]) -> None:
        assert not tuple(left)
