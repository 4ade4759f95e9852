"""The gateway worker process: `python -m autoglm_serve.gateway.worker`.

Started by the control plane with a listening socket and its settings. SIGTERM drains: nothing new is
accepted, what is in hand is finished within the drain timeout, and what is not is told so. SIGUSR1 ends that
time at once; a second SIGTERM does not, because a process manager may send one to every process, beside the
control plane's. SIGQUIT retires: a successor has the socket by then, and what is in hand is finished however
long it takes.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import logging
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial

import uvloop

from autoglm_serve.core.codec import from_json
from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.gateway import admin, pages
from autoglm_serve.gateway.access.doors import Doors
from autoglm_serve.gateway.access.grants import Grants
from autoglm_serve.gateway.access.identity import RequestIds, holder
from autoglm_serve.gateway.access.keyring import Keyring
from autoglm_serve.gateway.access.proxies import Proxies
from autoglm_serve.gateway.access.upstream_key import UpstreamKey
from autoglm_serve.gateway.admission.plain import usual_path
from autoglm_serve.gateway.exchange import dispatch
from autoglm_serve.gateway.exchange.account import Account, Outcome
from autoglm_serve.gateway.exchange.life_signs import LifeSigns
from autoglm_serve.gateway.exchange.request_log import RequestLog
from autoglm_serve.gateway.exchange.stream_watch import StreamWatch
from autoglm_serve.gateway.exchange.time_limit import TimeLimit
from autoglm_serve.gateway.ollama import serve as ollama
from autoglm_serve.gateway.recovery.habits import Habits
from autoglm_serve.gateway.recovery.quarantine import Quarantine
from autoglm_serve.gateway.recovery.suspects import Suspects
from autoglm_serve.gateway.routing.fleet_link import WorkerEnd
from autoglm_serve.gateway.routing.load import LoadTable
from autoglm_serve.gateway.routing.router import Router
from autoglm_serve.gateway.settings import Settings
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.connections import Connections
from autoglm_serve.gateway.wire.envelope import internal_error, stopping
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.introduced import ProxiedConnection
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.peers import is_loopback
from autoglm_serve.gateway.wire.tls import Certificate
from autoglm_serve.gateway.wire.upstream import Pool
from autoglm_serve.launch import descriptors
from autoglm_serve.launch.handover import HURRY, Giver
from autoglm_serve.observe import logs
from autoglm_serve.observe.counter_file import CounterFile
from autoglm_serve.route.scheduler import Bounds
from autoglm_serve.runtime.observable import Observable
from autoglm_serve.runtime.tasks import any_set

log = logging.getLogger(__name__)

BACKLOG = 4096
STDERR = 2
_UNSENT_BYTES = 128 * 1024
"""Of an answer, handed to the kernel and not yet on its way: it would take 4 MB, and so would the journal."""
_KEPT_DESCRIPTORS = 96
_SWITCH_S = 0.001
"""How long a thread that reads a large request may keep the loop from its turn; 5 ms by itself."""
_SWEEP_S = 0.1
_KEEP_S = 1.0
_COLLECT_AFTER = 10_000
"""Objects more than before."""
_ASLEEP_S = 1.0
"""A sweep that is so late was not busy but stopped, with the whole machine perhaps."""
_STATUS_S = 0.5
"""For the control plane to say how the service is; without its word a scrape shows a gap there."""
_SETTLE_S = 0.02
_LAST_WORDS_S = 1.0
"""In which those whose request is cut can be told."""


async def run(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until SIGTERM, then drain."""
    loop = asyncio.get_running_loop()
    fleet = Observable(FleetView())
    link = WorkerEnd(settings.control_socket, settings.worker_id, fleet)
    worker = _worker(settings, loop, fleet, link)
    fleet.listen(
        worker.quarantine.fleet_changed,
        lambda view: worker.suspects.wake(),
        worker.router.fleet_changed,
        worker.habits.fleet_changed,
        worker.streams.fleet_changed,
    )
    told = WorkerSignals(loop)
    giver = Giver(settings.handover_socket, listener)
    giver.watch(loop.add_reader, loop.remove_reader)
    certificate = Certificate(settings.tls) if settings.tls else None
    connections = Connections(settings.limits)
    requests = Requests(worker)
    limits = affordable(settings.limits, descriptors.raise_limit())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(link.run()), group.create_task(_sweep(connections, worker))]
        keeping = group.create_task(_keep(giver, certificate))
        await fleet.until(lambda view: view.version > 0)  # until then connections wait in the socket's queue
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)  # they inherit it
        fleet.listen(lambda view: _send_elsewhere(connections, view))
        proxies = Proxies(settings.trusted_proxies if certificate is None else ())
        server = await loop.create_server(
            partial(_accepted, worker, requests, limits, connections, proxies),
            sock=listener,
            backlog=BACKLOG,
            ssl=certificate.context if certificate else None,
            ssl_handshake_timeout=settings.limits.header_timeout_s if certificate else None,
        )
        link.serving()
        await any_set(told.stop, told.retire)
        link.leaving()
        keeping.cancel()
        giver.close()
        server.close()
        await asyncio.sleep(_SETTLE_S)  # connections that the loop has taken, and that are not known yet
        if not told.stop.is_set():
            await _retire(connections, told.stop)
        await _drain(connections, settings.drain_timeout_s, told.hurry)
        if connections:
            await _cut(connections, requests)
        for task in tasks:
            task.cancel()
    worker.pool.close()
    await worker.pictures.close()


class WorkerSignals:
    """What a worker is told: to end within its time (`stop`), at once (`hurry`), or when what it carries has
    ended (`retire`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop, self.hurry, self.retire = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        loop.add_signal_handler(HURRY, self._told_to_hurry)
        loop.add_signal_handler(signal.SIGQUIT, self.retire.set)

    def _told_to_hurry(self) -> None:
        self.stop.set()
        self.hurry.set()


def _accepted(
    worker: Worker,
    requests: "Requests",
    limits: ConnectionLimits,
    connections: Connections,
    proxies: Proxies,
) -> asyncio.Protocol:
    """Whatever reads a connection that has just been made."""
    connection = ClientConnection(requests, limits, worker.loop, connections)
    if worker.fleet.value.leaving:
        connection.drain(patient=True)
    if not proxies:
        return connection
    return ProxiedConnection(connection, proxies.trusts, worker.loop, limits.header_timeout_s)


def affordable(limits: ConnectionLimits, most_open: int) -> ConnectionLimits:
    """As many clients as there are descriptors for: each may need one to its replica, and some are kept for
    the control plane, for counters, and for telling those beyond that there are too many."""
    most = max(1, (most_open - _KEPT_DESCRIPTORS) // 2)
    return dataclasses.replace(limits, max_connections=min(limits.max_connections, most))


def _worker(
    settings: Settings, loop: asyncio.AbstractEventLoop, fleet: Observable[FleetView], link: WorkerEnd
) -> Worker:
    """The worker's collaborators, put together."""
    load = LoadTable(settings.load_path, settings.worker_id)
    router = Router(
        fleet,
        load,
        loop,
        workers=settings.workers,
        bounds=Bounds(waiting=settings.max_waiting, waiting_bytes=settings.max_waiting_bytes),
        wake=link.wake,
    )
    quarantine, pool = Quarantine(), Pool(loop)
    keyring = Keyring(settings.keys.files, required=settings.keys.required)
    grants = Grants(settings.state_dir, settings.worker_id, settings.workers)
    keyring.on_change = grants.keys_changed
    keyring.load()
    return Worker(
        settings=settings,
        loop=loop,
        fleet=fleet,
        control=link,
        load=load,
        counters=CounterFile(settings.counter_paths[settings.worker_id]),
        pool=pool,
        router=router,
        streams=StreamWatch(settings.stall_s, router.moved),
        quarantine=quarantine,
        suspects=Suspects(quarantine, fleet, loop.time, pool.takes_connections),
        habits=Habits(),
        life_signs=LifeSigns(),
        time_limit=TimeLimit(settings.request_timeout_s),
        requests=RequestLog(settings.log_requests, link.request_over),
        keyring=keyring,
        grants=grants,
        upstream_key=UpstreamKey(settings.keys.upstream),
    )


class Requests:
    """What this worker does with each request (`server.Handler`)."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._ids = RequestIds()
        self._doors = Doors(worker.settings.doors)
        self._proxies = Proxies(worker.settings.trusted_proxies)
        self._tasks: set[asyncio.Task[None]] = set()  # the loop keeps weak references only

    def holder(self, peer: str, headers: Mapping[bytes, bytes], *, loopback: bool) -> str:
        worker = self._worker
        if self._proxies:
            peer = self._proxies.client_of(peer, headers)
            loopback = is_loopback(peer)
        try:
            return holder(peer, headers, worker.keyring, loopback=loopback)
        except Refusal:
            if pages.has_admin_token(headers, worker):
                return peer
            raise

    def handle(self, client: ClientConnection, request: Request) -> asyncio.Task[None] | None:
        request.id = self._ids.of(request)
        request.path = usual_path(request.path)
        if self._proxies:
            request.peer = self._proxies.client_of(request.peer, request.headers)
            request.loopback = is_loopback(request.peer)
        if request.path == pages.METRICS:
            served = self._scraped(client, request)
        elif self._answered_here(client, request):
            return None
        elif request.path.startswith("/admin/"):
            served = admin.forward(client, request, self._worker)
        elif request.path.startswith(ollama.PREFIX):
            served = ollama.serve(client, request, self._worker)
        else:
            served = dispatch.dispatch(client, request, self._worker)
        task = self._worker.loop.create_task(served)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cut(self) -> int:
        """End every request now, with a word to its client; how many that were."""
        tasks = [task for task in self._tasks if not task.cancelling()]
        for task in tasks:
            task.cancel()
        return len(tasks)

    def refused(self, begun_s: float) -> None:
        account = Account(self._worker.counters, "other", begun_s)
        account.outcome = Outcome.REFUSED
        account.close(self._worker.loop.time())

    async def _scraped(self, client: ClientConnection, request: Request) -> None:
        self._answered_here(client, request, await self._worker.control.status(_STATUS_S))

    def _answered_here(
        self, client: ClientConnection, request: Request, status: ServiceStatus | None = None
    ) -> bool:
        """False leaves the request to `dispatch`. Health checks and scrapes are no business to count."""
        outcome = Outcome.REFUSED
        try:
            self._doors.check(request)
            return pages.answer(client, request, self._worker, status)
        except Refusal as refusal:
            client.refuse(refusal)
        except Exception:
            outcome = Outcome.INTERNAL
            id = request.id.decode("latin-1")
            log.exception("a bug in the gateway ended request %s to %s", id, request.path)
            client.refuse(internal_error())
        account = Account(self._worker.counters, "other", request.started_s)
        account.outcome = outcome
        account.close(self._worker.loop.time())
        return True


async def _sweep(connections: Connections, worker: Worker) -> None:
    """Deadlines, idle connections, silent streams and the queue, looked at now and then."""
    while True:
        worker.load.beat()
        due_s = worker.loop.time() + _SWEEP_S
        await asyncio.sleep(_SWEEP_S)
        now_s = worker.loop.time()
        if now_s - due_s > _ASLEEP_S:
            continue  # what came meanwhile is read first: nobody else was silent
        for connection in tuple(connections):
            connection.check_deadlines(now_s)
        worker.pool.sweep()
        worker.streams.sweep(now_s)
        worker.life_signs.sweep(now_s)
        worker.time_limit.sweep(now_s)
        worker.keyring.look(worker.loop, worker.readers)
        worker.grants.flush()
        worker.upstream_key.look()
        worker.router.tick()


async def _keep(giver: Giver, certificate: Certificate | None) -> None:
    """Whoever deletes the state directory leaves the next control plane without our socket; whoever renews
    the certificate tells nobody."""
    while True:
        await asyncio.sleep(_KEEP_S)
        giver.keep()
        if certificate is not None:
            certificate.look()


def _send_elsewhere(connections: Connections, view: FleetView) -> None:
    """Before the service stops, each client is told with its next answer to open another connection."""
    if view.leaving:
        for connection in tuple(connections):
            connection.drain(patient=True)


async def _retire(connections: Connections, stop: asyncio.Event) -> None:
    """Let every connection go on to its end; an idle one is told with its next answer to open another.

    Closing it now could cross a request that is on its way. Cut short by `stop`.
    """
    for connection in tuple(connections):
        connection.drain(patient=True)
    await any_set(stop, connections.empty)


async def _drain(connections: Connections, timeout_s: float, hurry: asyncio.Event) -> None:
    """Let every connection finish what it has, within the time or until there is a hurry."""
    for connection in tuple(connections):
        connection.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await any_set(hurry, connections.empty)


async def _cut(connections: Connections, requests: Requests) -> None:
    """Tell everybody who still waits; who does not take it in time is cut off."""
    cut = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_S):
            while connections:
                cut += requests.cut()
                for connection in tuple(connections):
                    connection.end(stopping())
                await asyncio.sleep(_SETTLE_S)
    log.warning("%d requests had not ended when the time to drain was over; they were told so", cut)
    for connection in tuple(connections):
        connection.abort()


def _spare_the_collector() -> None:
    """What is imported by now stays, and what requests leave is freed as they end, without a collector. It
    need not look at either as often as it would by itself, which is after a few requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A gateway worker; started by `autoglm serve`.")
    parser.add_argument("--settings", required=True, help="the worker's settings, as JSON")
    parser.add_argument("--listen-fd", required=True, type=int, help="the listening socket it inherits")
    parser.add_argument("--log-format", default="plain")
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args(argv)
    logs.configure(arguments.log_format, arguments.log_level, logs.OwnFile(STDERR))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the control plane's to interpret
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()  # what is there now stays: no collection has to look at it
    listener = socket.socket(fileno=arguments.listen_fd)
    _spare_the_collector()
    uvloop.run(run(from_json(Settings, arguments.settings), listener))


if __name__ == "__main__":
    main()
