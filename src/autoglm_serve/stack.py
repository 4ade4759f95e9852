"""The composition root: how a service is put together and taken apart. `serve` is the boot, top to bottom."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autoglm_serve import __version__
from autoglm_serve.core.errors import EngineFailed, ExitCode, ServeError, StateDirBusy
from autoglm_serve.core.plan import Deployment
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.deployment import Change, change_of, decide, recall, remember, revise
from autoglm_serve.engines.base import Command
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.gateway.load import MAX_WORKERS, LoadTable
from autoglm_serve.gateway.server import Limits
from autoglm_serve.gateway.state import Settings
from autoglm_serve.gateway.validate import MediaPolicy
from autoglm_serve.gateway.worker import encode_settings
from autoglm_serve.launch.listeners import beside, listen
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.state_dir import StateDir
from autoglm_serve.launch.takeover import LEAVING_S, ask_to_leave
from autoglm_serve.observe import admin
from autoglm_serve.options import Options
from autoglm_serve.probe.hub import Download
from autoglm_serve.probe.memory import has_room_for
from autoglm_serve.watch.adoption import Estate, claimed, inherit
from autoglm_serve.watch.clock import RealClock
from autoglm_serve.watch.fleet_line import FleetLine
from autoglm_serve.watch.idle import IdleWatch
from autoglm_serve.watch.keeper import Found
from autoglm_serve.watch.operations import Operations
from autoglm_serve.watch.places import Place, revised
from autoglm_serve.watch.rolling import Rolling
from autoglm_serve.watch.steps import Steps
from autoglm_serve.watch.supervisor import Supervisor
from autoglm_serve.watch.view import fleet_view
from autoglm_serve.watch.workers import Adopted, GatewayWorkers, seats

log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.05
ADMIN_SOCKET = "admin.sock"
DECIDED = "deployment.json"
"""In the state directory: what was decided, for the next control plane."""


class Narrator(Protocol):
    """Tells a person what happens. It is told everything and decides nothing."""

    def downloading(self, download: Download) -> None:
        """So much of a model is here. Called from a thread."""

    def planned(self, deployment: Deployment) -> None:
        """This is what will run, and why."""

    def replicas(self, statuses: tuple[ReplicaStatus, ...]) -> None:
        """Something changed about a replica."""

    def serving(self, url: str, deployment: Deployment) -> None:
        """The first request could be answered now."""

    def stopping(self, in_flight: int) -> None:
        """No new requests; those in flight are finished."""

    def close(self) -> None:
        """Nothing more is told: leave the terminal as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """What a service starts on: its sockets and places, and what of an earlier one goes on in them."""

    state_dir: Path
    launcher: LocalLauncher
    listeners: tuple[socket.socket, ...]
    workers: tuple[Adopted, ...]
    places: tuple[Place, ...]
    found: Mapping[str, Found]
    taken_over: bool = False
    """From a control plane that ran: its workers run its code."""


async def serve(
    options: Options, narrator: Narrator, read_options: Callable[[], Options], *, takeover: bool = False
) -> ExitCode:
    """Run the service until it is told to stop. Raises ServeError for what a person can mend.

    `read_options` reads the options anew, when SIGHUP says that they have changed. With `takeover` a control
    plane that runs in the same state directory is asked to leave, and this one goes on with all that it runs.
    """
    with ExitStack() as held:
        listeners = _any_port(options, held)
        state_dir = held.enter_context(_claimed(_state_dir(options, listeners), takeover=takeover)).path
        launcher = LocalLauncher(state_dir)
        estate = await inherit(launcher, state_dir, options.host, options.port)  # of a killed service
        listeners = _listeners(options, held, listeners, estate.listeners)
        deployment = await _deployment(options, narrator, state_dir, launcher, estate, takeover=takeover)
        narrator.planned(deployment)
        places, found = await claimed(deployment, ENGINES, estate.replicas, launcher)
        footing = Footing(
            state_dir=state_dir,
            launcher=launcher,
            listeners=listeners,
            workers=estate.workers,
            places=places,
            found=found,
            taken_over=takeover,
        )
        return await Service(options, deployment, footing, narrator, read_options).run()


def _claimed(path: Path, *, takeover: bool) -> StateDir:
    """The state directory, locked; from the control plane that has it, if that is to be taken over."""
    if not takeover:
        return StateDir(path)
    refusal = ask_to_leave(path / ADMIN_SOCKET)
    if refusal:
        raise StateDirBusy("The service that runs does not leave.", why=refusal, next_step="Try again.")
    return StateDir(path, wait_s=LEAVING_S)


async def _deployment(
    options: Options,
    narrator: Narrator,
    state_dir: Path,
    launcher: LocalLauncher,
    estate: Estate,
    *,
    takeover: bool,
) -> Deployment:
    """What to run: what was decided before, while replicas of that run; else what is decided now.

    Who takes over goes on with what runs even if other options are wanted, and goes over to those then.
    """
    decided = state_dir / DECIDED
    known = recall(decided, options)
    if known is None and takeover and (before := recall(decided, None)) is not None:
        known = before if not before.members[0].plan.gpu_groups else None
    if known is not None and estate.replicas:
        return known
    # None of them could be trusted to be what is wanted now, and they may hold the GPUs' memory.
    await launcher.end(estate.replicas)
    try:
        deployment = await decide(options, narrator.downloading)
    except BaseException:
        await launcher.end(worker.process.record for worker in estate.workers)
        raise
    remember(decided, options, deployment)
    return deployment


class Service:
    """A running service: the supervisor's replicas, the gateway's workers, and the line between them."""

    def __init__(
        self,
        options: Options,
        deployment: Deployment,
        footing: Footing,
        narrator: Narrator,
        read_options: Callable[[], Options],
    ) -> None:
        self._options = options
        self._read_options = read_options
        self._reloading: asyncio.Task[None] | None = None
        self._deployment = deployment
        self._narrator = narrator
        self._state_dir = footing.state_dir
        self._taken_over = footing.taken_over
        self._created_s = int(time.time())
        self._view_version = 0
        self._load = LoadTable(footing.state_dir / "load")
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._doomed = asyncio.Event()
        host, self._port = footing.listeners[0].getsockname()[:2]
        self._url = _url(host, self._port)
        self._worker_count = len(footing.listeners)
        self._supervisor = Supervisor(
            deployment,
            engines=ENGINES,
            launcher=footing.launcher,
            on_change=self._changed,
            use=self._use,
            places=footing.places,
            found=footing.found,
        )
        self._idle = IdleWatch(
            deployment.members,
            statuses=self._supervisor.statuses,
            load=self._use,
            rest=self._supervisor.rest,
            clock=RealClock(),
        )
        self._workers = GatewayWorkers(
            footing.listeners,
            self._worker_command,
            launcher=footing.launcher,
            clock=RealClock(),
            adopted=footing.workers,
            left=self._load.clear,
        )
        self._line = FleetLine(self._state_dir / "control.sock", self._wake, self._workers.serves)
        rolling = Rolling(
            supervisor=self._supervisor,
            in_flight=self._load.requests,
            room_for=has_room_for,
            clock=RealClock(),
        )
        self._operations = Operations(rolling, self._workers, lambda: self._options.drain_timeout_s)
        for row in set(range(MAX_WORKERS)) - {worker.seat for worker in footing.workers}:
            self._load.clear(row)

    async def run(self) -> ExitCode:
        """Serve until a signal, or until no replica can ever start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._line.run()),
                group.create_task(admin.serve(self._state_dir / ADMIN_SOCKET, self)),
                group.create_task(self._announce()),
                group.create_task(self._idle.run()),
            ]
            gateway = group.create_task(self._workers.run())
            replicas = group.create_task(self._supervisor.run())
            if self._supervisor.first_ready.is_set():
                self._changed()  # replicas that were adopted have nothing new to say
            await _first(self._stop, self._doomed)
            await self._take_down(gateway, replicas)
            for task in background:
                task.cancel()
        if self._doomed.is_set() and not self._stop.is_set():
            raise _cannot_start(self._supervisor.statuses())
        return ExitCode.STOPPED_AT_ONCE if self._stop_at_once.is_set() else ExitCode.OK

    async def _take_down(self, gateway: "asyncio.Task[None]", replicas: "asyncio.Task[None]") -> None:
        """The gateway first: what is in flight still needs its replicas. A second signal cuts it short."""
        slots = (status.slot for status in self._supervisor.statuses())
        self._operations.stop()
        self._narrator.stopping(sum(self._load.requests(slot) for slot in slots))
        patient = asyncio.ensure_future(self._workers.drain(self._options.drain_timeout_s + 1))
        hurry = asyncio.ensure_future(self._stop_at_once.wait())
        await asyncio.wait((patient, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if self._stop_at_once.is_set():
            await self._workers.drain(0)
        await patient
        await gateway
        await self._supervisor.stop(0.0 if self._stop_at_once.is_set() else 5.0)
        await replicas

    def status(self) -> dict[str, Any]:
        """What `autoglm status` shows."""
        return {
            "url": self._url,
            "version": __version__,
            "models": [
                {
                    "names": member.names,
                    "reference": member.files.reference,
                    "plan": member.plan.reasons,
                    "ledger": member.plan.ledger,
                    "predicted": member.plan.predicted,
                }
                for member in self._deployment.members
            ],
            "replicas": [self._replica(status) for status in self._supervisor.statuses()],
            "gateway": {
                "workers": self._worker_count,
                "serving": self._workers.serving,
                "restarts": self._workers.restarts,
            },
        }

    # what may be done to it while it runs

    @property
    def steps(self) -> Steps:
        return self._operations.steps

    def restart(self, replicas: Sequence[str] | None, *, workers: bool) -> str:
        """Begin to restart these replicas (None: every one); why not, or nothing."""
        there = [status.id for status in self._supervisor.statuses()]
        unknown = [name for name in replicas or () if name not in there]
        if unknown:
            return f"There is no replica {', '.join(unknown)}. There are {', '.join(there)}."
        if self._operations.busy:
            return "Another restart, or a change of the settings, is under way. Wait for its end."
        self._operations.restart(there if replicas is None else replicas, workers=workers)
        return ""

    def leave(self) -> str:
        """End this process and nothing else; why not, or nothing."""
        if self._operations.busy or self._stop.is_set():
            return "It is stopping, or a restart or a change of the settings is under way."
        log.warning("leaving everything that runs to another control plane")
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._vanish)
        return ""

    def _vanish(self) -> None:
        """As a kill would, so that there is one way to follow this process and not two."""
        self._narrator.close()
        os._exit(ExitCode.OK)

    def _told_to_reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        """Take over what has changed in the settings. What is wrong with them leaves everything as it is."""
        before, options = self._deployment, self._options
        try:
            wanted = await asyncio.to_thread(self._read_options)
            change = change_of(options, wanted)
            after = await revise(before, change)
        except ServeError as error:
            log.error("the settings were not taken, everything stays as it is: %s", error)
            return
        for name in change.not_live:
            log.warning("%s cannot change while the service runs; stop it and start it again for that", name)
        if not change.live:
            log.info("nothing has changed in the settings that a running service can take")
            return
        log.info("the settings have changed: %s", ", ".join(change.live))
        await self._go_over(change, after)

    async def _go_over(self, change: Change, after: Deployment) -> None:
        before, options = self._deployment, self._options
        old_places = self._supervisor.places()
        new_places = revised(old_places, before, after)
        # A model that goes, or goes by another name, is known until its replicas are gone.
        names = {member.name for member in after.members}
        leaving = (member for member in before.members if member.name not in names)
        self._deployment = Deployment(members=(*after.members, *leaving))
        self._options = change.options
        good = await self._operations.change(old_places, new_places, workers=change.for_workers)
        self._deployment = after if good else before
        self._options = change.options if good else options
        self._idle.watch(self._deployment.members)
        self._changed()
        if good:
            remember(self._state_dir / DECIDED, self._options, after)
            log.info("the settings are in force")
        else:
            log.error("the settings were not taken: the log says why; those before are in force")

    def _replica(self, status: ReplicaStatus) -> dict[str, Any]:
        return {
            "id": status.id,
            "model": status.model,
            "engine": status.engine,
            "state": status.state,
            "pid": status.pid,
            "port": status.port,
            "gpus": status.gpus,
            "in_flight": self._load.requests(status.slot),
            "restarts": status.restarts,
            "last_exit": status.last_exit,
            "progress": status.progress,
            "memory": status.memory,
            "log": status.log_path,
        }

    def _changed(self) -> None:
        statuses = self._supervisor.statuses()
        self._view_version += 1
        self._line.push(
            fleet_view(
                self._deployment,
                statuses,
                ENGINES,
                version=self._view_version,
                created_s=self._created_s,
            )
        )
        self._narrator.replicas(statuses)
        if _hopeless(statuses, on_demand={each.name for each in self._deployment.members if each.on_demand}):
            self._doomed.set()

    async def _announce(self) -> None:
        """Say once that requests can be answered: a worker is on the line and a replica is ready."""
        await self._line.joined.wait()
        await self._supervisor.first_ready.wait()
        self._narrator.serving(self._url, self._deployment)
        if self._taken_over and recall(self._state_dir / DECIDED, self._options) is None:
            await self._go_over_to_own_options()
        if self._taken_over or self._workers.outdated():
            await self._operations.rest()
            self._operations.restart((), workers=True)

    async def _go_over_to_own_options(self) -> None:
        """What was taken over was decided by other options than these."""
        try:
            after = await decide(self._options, lambda download: None)
        except ServeError as error:
            log.error("the new settings cannot be taken, those before are in force: %s", error)
            return
        names = ("the replicas",)
        change = Change(
            options=self._options, live=names, not_live=(), for_deployment=True, for_workers=False
        )
        await self._go_over(change, after)

    def _use(self, slot: int) -> tuple[int, int]:
        """Requests in flight on a slot, and those it was given so far."""
        return self._load.requests(slot), self._load.taken(slot)

    def _wake(self, model: str) -> None:
        self._supervisor.wake(model)

    def _told_to_stop(self) -> None:
        (self._stop_at_once if self._stop.is_set() else self._stop).set()

    def _worker_command(self, seat: int, descriptor: int) -> Command:
        options = self._options
        settings = Settings(
            version=__version__,
            state_dir=self._state_dir,
            index=seat,
            workers=seats(self._worker_count),
            limits=Limits(
                max_body_bytes=options.max_body_bytes,
                header_timeout_s=options.header_timeout_s,
                body_timeout_s=options.body_timeout_s,
                keep_alive_s=options.keep_alive_s,
                allow_origin=options.allow_origin,
            ),
            media=MediaPolicy(allow_remote=options.allow_image_url),
            wait_ready_s=options.wait_ready_s,
            wait_turn_s=options.queue_timeout_s,
            max_waiting=options.max_queue,
            max_waiting_bytes=options.max_queue_bytes,
            stall_s=options.stall_timeout_s,
            request_timeout_s=options.request_timeout_s,
            drain_timeout_s=options.drain_timeout_s,
        )
        return Command(
            argv=(
                *(sys.executable, "-m", "autoglm_serve.gateway.worker"),
                *("--settings", encode_settings(settings), "--listen-fd", str(descriptor)),
                *("--log-format", "json" if options.log_format == "json" else "plain"),
                *("--log-level", options.log_level),
            )
        )


def _any_port(options: Options, held: ExitStack) -> tuple[socket.socket, ...]:
    """Sockets at a port that the kernel chooses, where nothing else can name the state directory."""
    if options.port or options.state_dir is not None:
        return ()
    return _kept(listen(options.host, 0, _worker_count(options)), held)


def _listeners(
    options: Options,
    held: ExitStack,
    made: tuple[socket.socket, ...],
    inherited: tuple[socket.socket, ...],
) -> tuple[socket.socket, ...]:
    """One socket a worker: those that were made already, those that an earlier service's workers listen on,
    or new ones. Never fewer than inherited: connections may be waiting on any of them."""
    if made:
        return made
    if inherited:
        return _kept(beside(inherited, _worker_count(options)), held)
    return _kept(listen(options.host, options.port, _worker_count(options)), held)


def _kept(listeners: tuple[socket.socket, ...], held: ExitStack) -> tuple[socket.socket, ...]:
    for listener in listeners:
        held.enter_context(listener)
    return listeners


def _worker_count(options: Options) -> int:
    return min(options.gateway_workers or max(1, len(os.sched_getaffinity(0)) // 4), MAX_WORKERS // 2)


def _state_dir(options: Options, listeners: tuple[socket.socket, ...]) -> Path:
    port = listeners[0].getsockname()[1] if listeners else options.port
    return options.state_dir_for(port, os.environ).absolute()


def _url(host: str, port: int) -> str:
    """An address that a client on this machine can use."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


async def _first(*events: asyncio.Event) -> None:
    """Return when any of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


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
        why=f"{exit.cause}; the log is {last.log_path}" if last.log_path else str(exit.cause),
        next_step=exit.remedy or "Look at the log.",
    )
