"""A whole request in one process, on a loop whose clock the test moves. Nothing is sent."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.gateway.access.grants import Grants
from autoglm_serve.gateway.admission.fields import FieldPolicy
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.exchange.life_signs import LifeSigns
from autoglm_serve.gateway.exchange.relay import Relay
from autoglm_serve.gateway.exchange.request_log import RequestLog
from autoglm_serve.gateway.exchange.stream_watch import StreamWatch
from autoglm_serve.gateway.exchange.time_limit import TimeLimit
from autoglm_serve.gateway.recovery.habits import Habits
from autoglm_serve.gateway.recovery.quarantine import Quarantine
from autoglm_serve.gateway.recovery.suspects import Suspects
from autoglm_serve.gateway.routing.fleet_link import WorkerEnd
from autoglm_serve.gateway.routing.load import LoadTable
from autoglm_serve.gateway.routing.router import Router
from autoglm_serve.gateway.settings import LoggedRequests, Settings
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.connections import Connections
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.upstream import Pool
from autoglm_serve.gateway.worker import Requests
from autoglm_serve.observe import counter_file
from autoglm_serve.observe.counter_file import CounterFile
from autoglm_serve.route.scheduler import Bounds
from autoglm_serve.runtime.observable import Observable
from tests.gateway.gateway_process import fleet_of
from tests.gateway.raw_http import chat, post

TIMEOUT_S = 50.0
ANSWER = b'{"choices":[]}'


class Loop(asyncio.SelectorEventLoop):
    """Its clock jumps when it is told to."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


class Wires(asyncio.Transport):
    """The client's socket: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False


class Engine:
    """The worker's pool, and its one connection, whose answer comes with the end of the request's time."""

    used = 0
    open = True

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.sweep: Callable[[], None] = lambda: None
        """The look at how long requests have taken."""

    def idle(self, base_url: str) -> "Engine":
        return self

    def send(self, message: object, relay: Relay) -> None:
        self._loop.ahead_s = 2 * TIMEOUT_S
        self._loop.call_soon(self._answer, relay)
        self._loop.call_soon(self.sweep)  # in the same turn

    def abort(self) -> None: ...

    def _answer(self, relay: Relay) -> None:
        relay.on_head(200, ((b"content-type", b"application/json"),))
        relay.on_body(ANSWER)
        relay.on_end()


def worker_on(loop: asyncio.AbstractEventLoop, state_dir: Path, view: FleetView) -> Worker:
    fleet, load, quarantine = Observable(FleetView()), LoadTable(state_dir / "load", 0), Quarantine()
    fleet.replace(dataclasses.replace(view, version=1))
    settings = Settings(
        version="test",
        state_dir=state_dir,
        worker_id=0,
        workers=1,
        limits=ConnectionLimits(),
        fields=FieldPolicy(),
        media=MediaPolicy(),
        wait_ready_s=0,
        wait_turn_s=0,
        max_waiting=1,
        max_waiting_bytes=1 << 20,
        stall_s=30,
        request_timeout_s=TIMEOUT_S,
        drain_timeout_s=1,
    )
    router = Router(
        fleet,
        load,
        loop,
        workers=1,
        bounds=Bounds(waiting=1, waiting_bytes=1 << 20),
        wake=lambda model: None,
    )
    return Worker(
        settings=settings,
        loop=loop,
        fleet=fleet,
        control=WorkerEnd(settings.control_socket, 0, fleet),
        load=load,
        counters=CounterFile(state_dir / "counters-0"),
        pool=cast("Pool", Engine(cast("Loop", loop))),
        router=router,
        streams=StreamWatch(30),
        quarantine=quarantine,
        suspects=Suspects(quarantine, fleet, loop.time),
        habits=Habits(),
        life_signs=LifeSigns(),
        time_limit=TimeLimit(TIMEOUT_S),
        grants=Grants(state_dir, 0, 1),
        requests=RequestLog(LoggedRequests.ERRORS, lambda line: None),
    )


def test_an_answer_that_ends_as_its_time_ends_is_the_only_one(tmp_path: Path) -> None:
    loop, socket = Loop(), Wires()
    worker = worker_on(loop, tmp_path, fleet_of(["http://r0"]))
    cast("Engine", worker.pool).sweep = lambda: worker.time_limit.sweep(loop.time())
    client = ClientConnection(Requests(worker), ConnectionLimits(), loop, Connections(ConnectionLimits()))

    async def ask() -> None:
        client.connection_made(socket)
        client.data_received(post(chat()))
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(ask())
    assert socket.written.count(b"HTTP/1.1 ") == 1  # another would pass for that to the next request
    assert socket.written.endswith(b"\r\n\r\n" + ANSWER)
    counts = counter_file.read([tmp_path / "counters-0"])
    assert {key[-1]: count for key, count in counts.items() if key[0] == "requests"} == {"ok": 1}
