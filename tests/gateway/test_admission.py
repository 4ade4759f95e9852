"""More is asked than can be served: who waits, who is told to come back, and what it costs."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, fleet_of, running_gateway
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process

HANGS = post(chat("busy", fault="hang"))


@contextmanager
def one_at_a_time(tmp_path: Path, **settings: Any) -> Iterator[tuple[GatewayProcess, EngineProcess]]:
    """A gateway before an engine that takes one request at a time."""
    with running_engine("--chunks", "4") as engine:
        fleet = fleet_of([engine.url])
        fleet = replace(fleet, replicas=(replace(fleet.replicas[0], capacity_requests=1),))
        with running_gateway(tmp_path, fleet=fleet, **settings) as gateway:
            yield gateway, engine


def occupy(held: ExitStack, gateway: GatewayProcess, engine: EngineProcess) -> socket.socket:
    """The engine is busy until the connection is closed."""
    busy = held.enter_context(gateway.connect())
    busy.sendall(HANGS)
    engine.seen(begun=1)
    return busy


def test_who_does_not_fit_in_the_queue_is_told_when_to_come_back(tmp_path: Path) -> None:
    with one_at_a_time(tmp_path, max_waiting=0) as (gateway, engine), ExitStack() as held:
        occupy(held, gateway, engine)
        with wire(gateway) as client:
            answer = client.send(post(chat())).answer()
            assert (answer.status, answer.error["code"]) == (429, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="refused")


def test_who_waits_too_long_is_told_so(tmp_path: Path) -> None:
    with one_at_a_time(tmp_path, wait_turn_s=0.05) as (gateway, engine), ExitStack() as held:
        occupy(held, gateway, engine)
        with wire(gateway) as client:
            answer = client.send(post(chat())).answer()
            assert (answer.status, answer.error["code"]) == (503, "queue_timeout")
            assert int(answer.headers["retry-after"]) >= 1


def test_who_waits_is_served_when_there_is_room(tmp_path: Path) -> None:
    with one_at_a_time(tmp_path) as (gateway, engine), ExitStack() as held:
        busy = occupy(held, gateway, engine)
        answers: list[int] = []
        waiting = threading.Thread(target=lambda: answers.append(gateway.chat()[0]))
        waiting.start()
        busy.close()  # the one in front of it leaves
        waiting.join()
        assert answers == [200]
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="cancelled")
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0


def test_bodies_that_are_refused_leave_no_memory_behind(tmp_path: Path) -> None:
    """Two hundred bodies of a megabyte at a queue that holds eight of them."""
    large = post(chat("x" * 1_000_000))
    with (
        one_at_a_time(tmp_path, max_waiting=1000, max_waiting_bytes=8_000_000) as (gateway, engine),
        ExitStack() as held,
    ):
        occupy(held, gateway, engine)
        worker = psutil.Process(gateway.process.pid)
        clients = [held.enter_context(gateway.connect()) for _ in range(200)]
        for client in clients[:40]:
            client.sendall(large)
        gateway.wait_for_metric("autoglm_requests_total", 40 - 8, outcome="refused")
        early_bytes = worker.memory_info().rss
        for client in clients[40:]:
            client.sendall(large)
        gateway.wait_for_metric("autoglm_requests_total", 200 - 8, outcome="refused")
        assert worker.memory_info().rss < early_bytes + 160_000_000 // 2  # some are on their way
