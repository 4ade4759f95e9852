"""Keeps the gateway workers alive: one process at each listening socket, started again when it ends.

The sockets stay open here, so connections wait for a successor instead of being refused. A worker is renewed
by starting its successor on the same socket and then letting it go: it takes no new connection and finishes
what it carries, however long that is. Knows nothing of HTTP or fleets.

Each process has a worker id, its row in the shared load table and its file of counters: no two that live
have the same.
"""

import asyncio
import logging
import random
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autoglm_serve.control.replica.backoff import BackOff
from autoglm_serve.core.status import GatewayReport
from autoglm_serve.engines.base import Command
from autoglm_serve.launch.base import Exit
from autoglm_serve.launch.handover import HURRY
from autoglm_serve.launch.listeners import admit_no_more
from autoglm_serve.launch.local import LISTENER, LocalLauncher, LocalProcess
from autoglm_serve.runtime.clock import Clock
from autoglm_serve.runtime.observable import Observable
from autoglm_serve.runtime.tasks import running

log = logging.getLogger(__name__)

_BACK_OFF = BackOff(first_s=0.05, most_s=5.0, stable_s=10.0)
RETIRE = signal.SIGQUIT
_QUEUED_S = 0.05
"""In which workers take the connections that are queued or on their way when the service stops."""
_LAST_WORDS_S = 2.0
"""For what a worker has to tell those whose requests are cut."""
_START_S = 30.0
"""How long a successor may take until it serves."""
_LOOK_S = 1.0
_MOST_STILL = 10
"""Looks in a row at which a worker has not got on: it was stopped, or hangs, and its clients with it."""
_MOST_BUSY = 60
"""Of those at which it computes, as a few bodies of the largest size take 40 s on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A worker that an earlier control plane started."""

    worker_id: int
    process: LocalProcess
    listener: socket.socket | None
    """Where it listens; None if it only finishes what it carries."""


class GatewayWorkers:
    """Owns the worker processes, their ids and their sockets."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        command: Callable[[int, int], Command],
        *,
        launcher: LocalLauncher,
        clock: Clock,
        adopted: Iterable[Adopted] = (),
        left: Callable[[int], None] = lambda worker_id: None,
        beats: Callable[[int], int] = lambda worker_id: 0,
    ) -> None:
        """`command(worker_id, descriptor)` is that worker, which inherits its socket as `descriptor`; `left`
        is told of each id that nobody has any more; `beats` is a number that grows while one gets on."""
        self._listeners = listeners
        self._command = command
        self._launcher = launcher
        self._clock = clock
        self._left = left
        self._beats = beats
        self._adopted = tuple(adopted)
        self._workers: dict[int, LocalProcess] = {each.worker_id: each.process for each in self._adopted}
        self._at: dict[int, LocalProcess] = {}
        """The worker at each listener, which is started again when it ends."""
        self._coming: dict[int, LocalProcess] = {}
        """The successor that is on its way there."""
        self._crashes = dict.fromkeys(range(len(listeners)), 0)
        self._serving = Observable[frozenset[int]](frozenset())
        """The pids of those that take connections; replaced whenever somebody comes or goes."""
        self._group = asyncio.TaskGroup()
        self._renewing = asyncio.Lock()
        self._stopping = False
        self.restarts = 0

    async def run(self) -> None:
        """Returns when every worker has ended after `drain`."""
        async with self._group:
            for each in self._adopted:
                at = next((i for i, at in enumerate(self._listeners) if at is each.listener), None)
                self._attend(each.process, each.worker_id, at)
            for at in range(len(self._listeners)):
                if at not in self._at:
                    self._succeed(at)

    def serves(self, pid: int) -> None:
        """This worker has said that it takes connections."""
        self._serving.replace(self._serving.value | {pid})

    def leaves(self, pid: int) -> None:
        """This worker has been told by somebody to take no more connections: another does from now on."""
        at = next((at for at, worker in self._at.items() if worker.pid == pid), None)
        if at is None or self._stopping:
            return
        log.warning("gateway worker %d (pid %d) was told to leave; another takes its place", at, pid)
        self.restarts += 1
        self._let_go(self._at.pop(at))
        self._succeed(at)

    @property
    def pids(self) -> set[int]:
        """Of all that live, those that only finish what they carry too."""
        return {process.pid for process in self._workers.values()}

    def report(self) -> GatewayReport:
        """How they are."""
        serving = sum(process.pid in self._serving.value for process in self._at.values())
        return GatewayReport(workers=len(self._listeners), serving=serving, restarts=self.restarts)

    def outdated(self) -> bool:
        """A worker that was adopted is not what would be started today."""
        return any(
            process.record.argv != self._command(worker_id, LISTENER).argv
            for worker_id, process in self._workers.items()
            if process in self._at.values()
        )

    async def renew(self, told: Callable[[str], None] = lambda line: None) -> bool:
        """Replaces every worker, one after the other; false where a successor does not come up.

        Returns when the successors serve; those before them may still finish what they carry.
        """
        async with self._renewing:
            for at in range(len(self._listeners)):
                if self._stopping or not await self._renew(at, told):
                    return False
        return True

    async def drain(self, grace_s: float) -> None:
        """Let workers finish what they have and what is queued, for `grace_s` at most; nobody new gets in.

        What is not finished by then is told so. A second call may hurry the first.
        """
        self._stopping = True
        self._serving.replace(self._serving.value)  # who waits for one to come or go waits no more
        if grace_s:
            for listener in self._listeners:
                admit_no_more(listener)
            await self._clock.sleep(_QUEUED_S)
        for listener in self._listeners:
            listener.close()
        async with running(self._hurry(grace_s)), asyncio.TaskGroup() as group:
            for process in tuple(self._workers.values()):
                if not grace_s:
                    process.send(HURRY)
                group.create_task(process.end(grace_s + _LAST_WORDS_S))

    async def _hurry(self, grace_s: float) -> None:
        """A worker's own time may be longer: part of it may have been spent in serving on."""
        await self._clock.sleep(grace_s)
        for process in self._workers.values():
            process.send(HURRY)

    async def _renew(self, at: int, told: Callable[[str], None]) -> bool:
        while (worker_id := self._free_id()) is None and not self._stopping:
            told(f"gateway worker {at}: waiting for one before it to finish what it carries")
            await self._serving.changed()
        old = self._at.get(at)
        if self._stopping or worker_id is None or old is None:
            return not self._stopping  # one that has crashed is on its way back, as new as can be
        try:
            new = self._coming[at] = self._spawn(at, worker_id)
        except OSError as problem:
            told(f"gateway worker {at}: its successor cannot be started ({problem}); the old one stays")
            return False
        try:
            if not await self._comes_up(new):
                told(f"gateway worker {at}: its successor did not come up; the old one stays")
                new.kill()
                return False
        finally:
            self._coming.pop(at, None)
        if self._at.get(at) is old:
            self._at[at] = new
            self._let_go(old)
        told(f"gateway worker {at}: pid {new.pid} serves; pid {old.pid} finishes what it carries")
        return True

    def _let_go(self, old: LocalProcess) -> None:
        """It finishes what it carries, under a name of its own."""
        old.rename(f"retired-{self._id_of(old)}")
        old.send(RETIRE)

    def _succeed(self, at: int) -> None:
        """Somebody has to be at this listener: the successor that is on its way, or a new one."""
        if at in self._coming:
            self._at[at] = self._coming[at]
        elif not self._starts(at):
            self._group.create_task(self._start_later(at))

    async def _comes_up(self, process: LocalProcess) -> bool:
        try:
            async with asyncio.timeout(_START_S):
                await self._serving.until(
                    lambda serving: process.pid in serving or process not in self._workers.values()
                )
        except TimeoutError:
            return False
        return process in self._workers.values()

    def _id_of(self, process: LocalProcess) -> int:
        return next(worker_id for worker_id, held in self._workers.items() if held is process)

    def _free_id(self) -> int | None:
        return next(
            (
                worker_id
                for worker_id in range(worker_ids(len(self._listeners)))
                if worker_id not in self._workers
            ),
            None,
        )

    def _starts(self, at: int) -> bool:
        """Starts one; false where that fails for now, which must not end the others."""
        worker_id = self._free_id()
        if worker_id is None:
            log.warning("gateway worker %d waits for those before it to finish what they carry", at)
            return False
        try:
            self._at[at] = self._spawn(at, worker_id)
        except OSError as problem:
            log.error("gateway worker %d cannot be started: %s; it is tried again", at, problem)
            return False
        return True

    async def _start_later(self, at: int) -> None:
        """Starts one, after a wait that grows with every try."""
        while True:
            await self._clock.sleep(_BACK_OFF.delay_s(self._crashes[at], random.random()))
            if self._stopping or at in self._at or self._starts(at):
                return
            self._crashes[at] += 1

    def _spawn(self, at: int, worker_id: int) -> LocalProcess:
        listener = self._listeners[at]
        process = self._launcher.spawn(
            f"gateway-{worker_id}",
            self._command(worker_id, LISTENER),
            listener.getsockname()[1],
            listener=listener.fileno(),
        )
        self._attend(process, worker_id, None)
        return process

    def _attend(self, process: LocalProcess, worker_id: int, at: int | None) -> None:
        self._workers[worker_id] = process
        if at is not None:
            self._at[at] = process
        self._group.create_task(self._follow(process, worker_id))

    async def _follow(self, process: LocalProcess, worker_id: int) -> None:
        """One process to its end, and what follows from it."""
        started_s = self._clock.now_s()
        try:
            async with running(self._end_when_still(process, worker_id)):
                how = await process.exited()
        finally:
            del self._workers[worker_id]
            await process.close()
        self._coming = {at: worker for at, worker in self._coming.items() if worker is not process}
        self._left(worker_id)
        self._serving.replace(self._serving.value - {process.pid})
        at = next((at for at, worker in self._at.items() if worker is process), None)
        if at is None or self._stopping:
            return  # it was let go
        del self._at[at]
        self.restarts += 1
        lived_s = self._clock.now_s() - started_s
        self._crashes[at] = _BACK_OFF.crashes_after(self._crashes[at], lived_s)
        log.warning("gateway worker %d ended (%s); starting it again", at, _said(how))
        if at in self._coming:
            self._at[at] = self._coming[at]
        else:
            await self._start_later(at)

    async def _end_when_still(self, process: LocalProcess, worker_id: int) -> None:
        """Kill a worker that got on and does no more. A look that comes late counts nothing: we were stopped
        too, with the whole machine perhaps."""
        still, busy, got_on, before = 0, 0, False, self._beats(worker_id)
        while still < _MOST_STILL and busy < _MOST_BUSY:
            due_s = self._clock.now_s() + _LOOK_S
            await self._clock.sleep(_LOOK_S)
            now = self._beats(worker_id)
            if now != before:
                still, busy, got_on, before = 0, 0, True, now
            elif got_on and self._clock.now_s() - due_s < _LOOK_S:
                computing = process.record.identity.computing
                still, busy = still + (not computing), busy + computing
        lasted_s = (still + busy) * _LOOK_S
        log.error("pid %d, a gateway worker, has not moved for %g s; killing it", process.pid, lasted_s)
        process.kill()


def worker_ids(workers: int) -> int:
    """Room for every worker and for one before it that finishes what it carries."""
    return 2 * workers


def _said(how: Exit) -> str:
    return f"signal {how.signal}" if how.signal else f"status {how.code}"
