"""A running service: replicas, gateway workers and the line between them, from first request to last.

Owns none of what a request needs; it brings together those who do, and takes them down in order. What may be
changed while it runs is `change`'s business.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoglm_serve.config.options import Options
from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.idle import IdleWatch
from autoglm_serve.control.fleet.rolling import Rolling
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.fleet.view import fleet_view
from autoglm_serve.control.reaper import collect_orphans, is_first
from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.control.workers.control_channel import ControlPlaneEnd
from autoglm_serve.control.workers.gateway_workers import Adopted, GatewayWorkers, worker_ids
from autoglm_serve.core.control_messages import (
    Joined,
    Leaving,
    RequestEnded,
    Serving,
    WakeModel,
    WorkerMessage,
)
from autoglm_serve.core.errors import EngineFailed, ExitCode
from autoglm_serve.core.plan import Deployment
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.deploy.calibrate import Ledgers
from autoglm_serve.engines.base import Command
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.gateway.routing.load import LOAD_FILE, MAX_WORKERS, LoadTable
from autoglm_serve.launch.base import RunningProcess
from autoglm_serve.launch.listeners import local_url
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.state_dir import CONTROL_SOCKET, DECIDED, StateDir
from autoglm_serve.observe import request_lines
from autoglm_serve.probe.memory import has_room_for
from autoglm_serve.runtime.clock import RealClock
from autoglm_serve.runtime.tasks import any_set
from autoglm_serve.service.bookkeeper import Bookkeeper
from autoglm_serve.service.change import Operator
from autoglm_serve.service.control_sockets import ControlSockets
from autoglm_serve.service.guard import books_of, has_keys, key_files
from autoglm_serve.service.in_force import InForce
from autoglm_serve.service.reporter import Reporter
from autoglm_serve.service.signals import Signals
from autoglm_serve.service.standby import stand_by, take_control
from autoglm_serve.service.status import service_status
from autoglm_serve.service.worker_command import worker_command

log = logging.getLogger(__name__)

_KEYS_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BootState:
    """What a service starts on: its sockets and replicas, and what of an earlier one goes on."""

    lock: StateDir
    """Of the state directory: one service at a time."""
    launcher: LocalLauncher
    listeners: tuple[socket.socket, ...]
    workers: tuple[Adopted, ...]
    desired: DesiredState
    found: Mapping[str, RunningProcess]
    taken_over: bool = False
    """From a control plane that ran: its workers run its code."""
    guarded: bool = False
    """Clients need an API key."""


class Service:
    """A running service: the supervisor's replicas, the gateway's workers, and the line between them."""

    def __init__(
        self,
        options: Options,
        deployment: Deployment,
        state: BootState,
        reporter: Reporter,
        read_options: Callable[[], Options],
        signals: Signals,
    ) -> None:
        self._reporter = reporter
        self._signals = signals
        self._lock, self._launcher = state.lock, state.launcher
        self._state_dir = state.lock.path
        self._in_force = InForce(options, deployment)
        self._taken_over = state.taken_over
        self._guarded = state.guarded
        self._created_s = int(time.time())
        self._view_version = 0
        self._leaving = False
        self._load = LoadTable(self._state_dir / LOAD_FILE)
        for row in set(range(MAX_WORKERS)) - {worker.worker_id for worker in state.workers}:
            self._load.clear(row)
        self._ledgers = Ledgers(os.environ)
        self._doomed = asyncio.Event()
        host, port = state.listeners[0].getsockname()[:2]
        self._url = local_url(host, port, tls=options.tls_cert is not None)
        self._rows = worker_ids(len(state.listeners))
        self._supervisor = Supervisor(
            state.desired,
            engines=ENGINES,
            effects=Effects(launcher=state.launcher, use=self._use, movement=self._load.movement),
            on_change=self._changed,
            found=state.found,
        )
        self._idle = self._idle_watch()
        self._workers = self._gateway_workers(state)
        self._channel = ControlPlaneEnd(self._state_dir / CONTROL_SOCKET, self._heard, self._status)
        self._operator = self._made_operator(read_options)
        books = books_of(options, self._state_dir)
        self._bookkeeper = Bookkeeper(self._state_dir, books, RealClock())
        self._sockets = ControlSockets(self._lock, self._channel, self._operator, self._status, RealClock())

    def _idle_watch(self) -> IdleWatch:
        return IdleWatch(
            self._in_force.deployment.members,
            statuses=self._supervisor.statuses,
            load=self._use,
            sleep=self._supervisor.sleep,
            clock=RealClock(),
        )

    def _gateway_workers(self, state: BootState) -> GatewayWorkers:
        return GatewayWorkers(
            state.listeners,
            self._worker_command,
            launcher=state.launcher,
            clock=RealClock(),
            adopted=state.workers,
            left=self._load.clear,
            beats=self._load.beats,
        )

    def _worker_command(self, worker_id: int, descriptor: int) -> Command:
        return worker_command(
            self._in_force.options,
            self._state_dir,
            self._rows,
            worker_id,
            descriptor,
            guarded=self._guarded,
        )

    def _made_operator(self, read_options: Callable[[], Options]) -> Operator:
        rolling = Rolling(
            supervisor=self._supervisor,
            in_flight=self._load.requests,
            room_for=has_room_for,
            clock=RealClock(),
        )
        return Operator(
            self._in_force,
            read_options=read_options,
            rolling=rolling,
            workers=self._workers,
            decided=self._state_dir / DECIDED,
            on_change=self._other_deployment,
        )

    async def run(self) -> ExitCode:
        """Serve until a signal, or until no replica can ever start."""
        stop, stop_at_once = self._signals.stop, self._signals.stop_at_once
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._answer()),
                group.create_task(self._operator.follow(self._signals.reload)),
                group.create_task(self._announce()),
                group.create_task(self._idle.run()),
                group.create_task(self._guard()),
                group.create_task(self._bookkeeper.run()),
                *([group.create_task(collect_orphans(RealClock()))] if is_first() else []),
            ]
            gateway = group.create_task(self._workers.run())
            replicas = group.create_task(self._supervisor.run())
            if self._supervisor.first_ready.is_set():
                self._changed()  # replicas that were adopted have nothing new to say
            await any_set(stop, self._doomed)
            await self._take_down(gateway, replicas)
            for task in background:
                task.cancel()
            await asyncio.to_thread(self._bookkeeper.book)
        if self._doomed.is_set() and not stop.is_set():
            raise _cannot_start(self._supervisor.statuses())
        return ExitCode.STOPPED_AT_ONCE if stop_at_once.is_set() else ExitCode.OK

    async def _answer(self) -> None:
        """Workers and persons, until another control plane is to; and again, should that end too early."""
        while True:
            successor = await self._sockets.answer()
            if stand_by(self._lock, successor, self._signals.listen):
                self._reporter.close()
                os._exit(ExitCode.OK)  # as a kill would: there is one way to follow this process and not two
            log.error("pid %d, which was to take over, has ended before it did; going on", successor)
            self._operator.stay()
            await self._end_strangers()

    async def _guard(self) -> None:
        """From the first key on, workers are started to ask for one, whatever becomes of the file."""
        while not self._guarded:
            self._guarded = has_keys(key_files(self._in_force.options, self._state_dir))
            await RealClock().sleep(_KEYS_LOOK_S)

    async def _end_strangers(self) -> None:
        """What somebody else has started here meanwhile."""
        ours = {status.pid for status in self._supervisor.statuses()} | self._workers.pids
        await self._launcher.end(each for each in await self._launcher.left() if each.pid not in ours)

    async def _take_down(self, gateway: "asyncio.Task[None]", replicas: "asyncio.Task[None]") -> None:
        """The gateway first: what is in flight still needs its replicas. A second signal cuts it short."""
        self._operator.stop()
        left_s = self._in_force.options.drain_timeout_s - await self._serve_on()
        slots = (status.slot for status in self._supervisor.statuses())
        self._reporter.stopping(sum(self._load.requests(slot) for slot in slots))
        patient = asyncio.ensure_future(self._workers.drain(left_s))
        hurry = asyncio.ensure_future(self._signals.stop_at_once.wait())
        await asyncio.wait((patient, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if self._signals.stop_at_once.is_set():
            await self._workers.drain(0)
        await patient
        await gateway
        await self._supervisor.stop(0.0 if self._signals.stop_at_once.is_set() else 5.0)
        await replicas

    async def _serve_on(self) -> float:
        """For whoever has not heard that others should serve; the seconds that it took."""
        options = self._in_force.options
        lame_duck_s = min(options.lame_duck_s, options.drain_timeout_s)
        if not (self._signals.by_manager and lame_duck_s and self._supervisor.first_ready.is_set()):
            return 0.0
        self._leaving = True
        self._changed()
        log.info("told to stop: /ready says 503, new connections are served for another %g s", lame_duck_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lame_duck_s):
                await self._signals.stop_at_once.wait()
        return lame_duck_s

    def _status(self) -> ServiceStatus:
        return service_status(
            self._url,
            self._in_force.deployment,
            self._supervisor.statuses(),
            self._load.requests,
            self._workers.report(),
        )

    def _changed(self) -> None:
        statuses, deployment = self._supervisor.statuses(), self._in_force.deployment
        self._view_version += 1
        self._channel.push(
            fleet_view(
                deployment,
                statuses,
                ENGINES,
                version=self._view_version,
                created_s=self._created_s,
                leaving=self._leaving,
            )
        )
        self._reporter.replicas(statuses)
        self._ledgers.see(deployment.members, statuses)
        if _hopeless(statuses, on_demand={each.name for each in deployment.members if each.on_demand}):
            self._doomed.set()

    def _other_deployment(self) -> None:
        self._idle.watch(self._in_force.deployment.members)
        self._changed()

    async def _announce(self) -> None:
        """Say once that requests can be answered: a worker is on the line and a replica is ready."""
        await self._channel.joined.wait()
        take_control(self._state_dir)
        await self._supervisor.first_ready.wait()
        self._reporter.serving(self._url, self._in_force.deployment)
        if self._taken_over:
            await self._operator.go_over_from_others()
        elif self._workers.outdated():
            await self._operator.renew_workers()

    def _heard(self, message: WorkerMessage) -> None:
        """A gateway worker has said something."""
        match message:
            case WakeModel(model=model):
                self._supervisor.wake(model)
            case Serving(pid=pid):
                self._workers.serves(pid)
            case Leaving(pid=pid):
                self._workers.leaves(pid)
            case RequestEnded(request=line):
                request_lines.tell(line)
            case Joined(worker_id=worker_id, pid=pid):
                log.debug("gateway worker %d (pid %d) is on the line", worker_id, pid)

    def _use(self, slot: int) -> tuple[int, int]:
        """Requests in flight on a slot, and those it was given so far."""
        return self._load.requests(slot), self._load.taken(slot)


def _hopeless(statuses: tuple[ReplicaStatus, ...], on_demand: set[str]) -> bool:
    """Every replica that should run all the time has failed for good."""
    states = {status.state for status in statuses if status.model not in on_demand} - {ReplicaState.STOPPED}
    return states == {ReplicaState.FAILED}


def _cannot_start(statuses: tuple[ReplicaStatus, ...]) -> EngineFailed:
    last = next((status for status in statuses if status.last_exit is not None), None)
    if last is None or last.last_exit is None:
        return EngineFailed("No replica could be started.", next_step="Look at the log.")
    exit = last.last_exit
    return EngineFailed(
        f"No replica of {last.model} can run: {exit.summary}",
        why=f"{exit.cause}; the log is {last.log}" if last.log else str(exit.cause),
        next_step=exit.remedy or "Look at the log.",
    )
