"""Workers as processes: they drain, die, share one port, and neither counters nor load are lost with them."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autoglm_serve.core.control_messages import encode_news
from autoglm_serve.gateway.admission.fields import FieldPolicy
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.settings import Settings
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.launch.handover import HURRY
from autoglm_serve.observe import counter_file
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import (
    GatewayProcess,
    _control_socket,
    _environment,
    fleet_of,
    running_gateway,
    settings_argument,
)
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process

ALL_TEXT = "tok0 tok1 tok2 tok3 "


# --- one worker


def test_sigterm_finishes_what_is_in_hand_and_takes_nothing_new(
    engine: EngineProcess, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, [engine.url]) as gateway, wire(gateway) as busy, wire(gateway) as idle:
        assert idle.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").answer().status == 200
        engine.control(clear=True)
        busy.send(post(chat(stream=True, delay_s=0.05)))
        engine.seen(begun=1)
        gateway.process.send_signal(signal.SIGTERM)
        assert idle.ended
        assert busy.answer().text == ALL_TEXT
        assert busy.ended
        assert gateway.process.wait(timeout=5) == 0


def test_draining_ends_in_time_though_a_request_does_not(engine: EngineProcess, tmp_path: Path) -> None:
    with running_gateway(tmp_path, [engine.url], drain_timeout_s=0.2) as gateway, wire(gateway) as client:
        engine.control(clear=True)
        client.send(post(chat(stream=True, fault="hang:1")))
        engine.seen(begun=1)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(timeout=5) == 0
        assert engine.seen(ended=1)[0]["outcome"] == "client_gone"


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGTERM, HURRY), (HURRY,)])
def test_what_draining_cuts_is_told_so(
    engine: EngineProcess, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    """Streams, whole answers, those that wait for their turn, and one that is still on its way in."""
    drain_s = 0.3 if signals == (signal.SIGTERM,) else 60
    fleet = fleet_of([engine.url])
    fleet = replace(fleet, replicas=(replace(fleet.replicas[0], capacity_requests=2),))
    with ExitStack() as held:
        gateway = held.enter_context(running_gateway(tmp_path, fleet=fleet, drain_timeout_s=drain_s))
        stream, whole, waits, arrives, idle = (held.enter_context(wire(gateway)) for _ in range(5))
        engine.control(clear=True)
        stream.send(post(chat(stream=True, fault="hang:1")))
        engine.seen(begun=1)
        whole.send(post(chat(fault="hang:0")))
        engine.seen(begun=2)
        waits.send(post(chat()))
        arrives.send(post(chat())[:-10])
        idle.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").answer()  # the others have been read by now
        for number in signals:
            gateway.process.send_signal(number)
            assert idle.ended  # it has been heard
        told = stream.answer()
        assert told.status == 200
        assert b'"code":"shutting_down"' in told.body
        assert told.body.endswith(b"data: [DONE]\n\n")
        for client in (whole, waits, arrives):
            refused = client.answer()
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")
            assert refused.error["code"] == "shutting_down"
        assert gateway.process.wait(timeout=5) == 0
    counts = counter_file.read([tmp_path / "counters-0"])
    assert sum(count for key, count in counts.items() if key[0] == "requests" and key[-1] == "shutdown") == 3


def test_a_request_on_its_way_in_is_served_before_the_worker_ends(
    engine: EngineProcess, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, [engine.url]) as gateway, wire(gateway) as client, wire(gateway) as idle:
        request = post(chat())
        client.send(request[:-10])
        idle.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").answer()  # the worker has read the other by now
        gateway.process.send_signal(signal.SIGTERM)
        assert idle.ended
        assert client.send(request[-10:]).answer().text == ALL_TEXT


def test_ctrl_c_is_left_to_the_control_plane(gateway: GatewayProcess) -> None:
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.chat()[0] == 200


def test_the_worker_serves_on_when_the_control_plane_is_gone(engine: EngineProcess, tmp_path: Path) -> None:
    with running_gateway(tmp_path, [engine.url]) as gateway:
        gateway._line.sendall(b'{"version": 3, "mod')  # killed in the middle of a line
        gateway._line.shutdown(socket.SHUT_RDWR)
        assert [gateway.chat()[0] for _ in range(5)] == [200] * 5


def test_an_idle_worker_is_small(gateway: GatewayProcess) -> None:
    assert psutil.Process(gateway.process.pid).memory_info().rss < 48 * 2**20


# --- several workers on one port


class Workers:
    """Workers on one port, with this process as their control plane."""

    def __init__(self, state_dir: Path, urls: list[str], count: int, stack: ExitStack) -> None:
        self._stack = stack
        self._view = encode_news(fleet_of(urls)) + b"\n"
        self.settings = Settings(
            version="test",
            state_dir=state_dir,
            worker_id=0,
            workers=count,
            limits=ConnectionLimits(),
            fields=FieldPolicy(),
            media=MediaPolicy(),
            wait_ready_s=5.0,  # a worker that has no view yet waits for it
            wait_turn_s=10.0,
            max_waiting=64,
            max_waiting_bytes=1 << 28,
            stall_s=30.0,
            request_timeout_s=0,
            drain_timeout_s=1,
        )
        self._control = stack.enter_context(_control_socket(self.settings))
        self._control.settimeout(None)
        self.listeners = [stack.enter_context(_listener(0))]
        self.port = int(self.listeners[0].getsockname()[1])
        self.listeners += [stack.enter_context(_listener(self.port)) for _ in range(count - 1)]
        self.processes = [self._start(index) for index in range(count)]

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        """Start a worker and hand it the fleet."""
        descriptor = self.listeners[index].fileno()
        argv = [sys.executable, "-m", "autoglm_serve.gateway.worker", "--listen-fd", str(descriptor)]
        argv += ["--settings", settings_argument(replace(self.settings, worker_id=index))]
        process = self._stack.enter_context(subprocess.Popen(argv, pass_fds=[descriptor], env=_environment()))
        self._stack.callback(process.kill)
        line = self._stack.enter_context(self._control.accept()[0])
        line.sendall(self._view)
        return process

    def restart(self, index: int) -> None:
        self.processes[index] = self._start(index)

    def chat(self, **fields: object) -> int:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(post(chat(**fields), "/v1/chat/completions", "Connection: close"))
            with connection.makefile("rb") as answer:
                return int(answer.read().split()[1])

    def counted(self, index: int | None = None) -> int:
        """Requests that ended well, of one worker or of all."""
        paths = self.settings.counter_paths if index is None else [self.settings.counter_paths[index]]
        counts = counter_file.read(paths)
        return sum(value for key, value in counts.items() if key[0] == "requests" and key[-1] == "ok")

    def wait_until_counted(self, requests: int) -> None:
        """A request is counted just after its client has the answer."""
        deadline_s = time.monotonic() + 10
        while self.counted() < requests:
            assert time.monotonic() < deadline_s, self.counted()
        assert self.counted() == requests


def _listener(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=True)


@contextmanager
def running_workers(state_dir: Path, urls: list[str], count: int) -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(state_dir, urls, count, stack)


def test_two_workers_share_a_port_and_their_counters(engine: EngineProcess, tmp_path: Path) -> None:
    with running_workers(tmp_path, [engine.url], 2) as workers:
        assert [workers.chat() for _ in range(60)] == [200] * 60
        workers.wait_until_counted(60)
        assert min(workers.counted(0), workers.counted(1)) > 5


def test_two_workers_see_each_others_load(tmp_path: Path) -> None:
    """Requests that hang on both workers spread evenly over the replicas, as one worker would do it."""
    with (
        running_engine() as one,
        running_engine() as two,
        ExitStack() as clients,
        running_workers(tmp_path, [one.url, two.url], 2) as workers,
    ):
        for sent in range(1, 21):
            connection = socket.create_connection(("127.0.0.1", workers.port))
            clients.enter_context(connection)
            connection.sendall(post(chat(fault="hang")))
            while len(one.seen()) + len(two.seen()) < sent:
                pass
        assert (len(one.seen()), len(two.seen())) == (10, 10)


def test_counters_survive_a_killed_worker_and_its_load_is_forgotten(
    engine: EngineProcess, tmp_path: Path
) -> None:
    with running_workers(tmp_path, [engine.url], 1) as workers, ExitStack() as clients:
        assert [workers.chat() for _ in range(10)] == [200] * 10
        engine.control(clear=True)
        connection = clients.enter_context(socket.create_connection(("127.0.0.1", workers.port)))
        connection.sendall(post(chat(fault="hang")))
        engine.seen(begun=1)
        workers.processes[0].kill()
        workers.processes[0].wait()
        workers.restart(0)
        assert [workers.chat() for _ in range(5)] == [200] * 5
        workers.wait_until_counted(15)
        with socket.create_connection(("127.0.0.1", workers.port)) as asking:
            asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with asking.makefile("rb") as answer:
                lines = answer.read().decode().splitlines()
        in_flight = [line for line in lines if line.startswith("autoglm_replica_in_flight_requests{")]
        assert [float(line.split()[-1]) for line in in_flight] == [0]
