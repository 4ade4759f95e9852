"""The whole service, started as a person starts it, and what happens when parts of it are killed."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from autoglm_serve.core.errors import ExitCode
from tests.fakes.engine_process import running_engine
from tests.process.service_process import ServiceProcess, running_service

pytestmark = pytest.mark.process


def all_ready(replicas: list[dict[str, object]]) -> bool:
    """The speech model stays away until somebody speaks."""
    return all(replica["state"] == "ready" for replica in replicas if replica["model"] != "glm-asr-demo")


def test_one_command_serves_text_streams_and_pictures() -> None:
    with running_service() as service:
        status, _, body = service.chat("你是谁?")
        assert status == 200, body
        status, headers, body = service.chat("hello", stream=True)
        assert headers["content-type"].startswith("text/event-stream")
        assert body.endswith(b"data: [DONE]\n\n")
        screen = Path(__file__).resolve().parents[2] / "examples" / "screen.png"
        status, _, body = service.chat(picture_of(screen))
        assert status == 200, body
        replicas = service.wait_for_replicas(all_ready)
        assert [replica["state"] for replica in replicas] == ["ready", "ready", "stopped"]
        pids = service.pids()
        assert service.stop() == ExitCode.OK
        assert not any(alive(pid) for pid in pids)


def test_a_killed_replica_costs_no_request_and_comes_back() -> None:
    with running_service("--replicas", "2") as service:
        victim = service.wait_for_replicas(all_ready)[0]
        statuses: list[int] = []
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                statuses.append(service.chat("hello")[0])

        thread = threading.Thread(target=load)
        thread.start()
        os.kill(victim["pid"], signal.SIGKILL)
        try:
            back = service.wait_for_replicas(
                lambda replicas: replicas[0]["restarts"] == 1 and all_ready(replicas)
            )
        finally:
            done.set()
            thread.join()
        assert back[0]["pid"] != victim["pid"]
        assert back[0]["last_exit"]["cause"] == "killed"
        assert statuses
        assert set(statuses) == {200}


def test_a_killed_gateway_worker_comes_back_on_the_same_port() -> None:
    with running_service("--replicas", "1", "--gateway-workers", "1") as service:
        assert service.chat()[0] == 200
        record = json.loads((service.state_dir / "replicas" / "gateway-0.json").read_text())
        os.kill(record["identity"]["pid"], signal.SIGKILL)
        assert service.chat()[0] == 200  # the connection waits in the socket's queue for the successor


def test_a_gateway_worker_that_hangs_is_replaced_and_what_the_other_carries_goes_on() -> None:
    flags = ("--engine", "external", "--gateway-workers", "2")
    with (
        running_engine() as engine,
        running_service(*flags, "--upstream", engine.url) as service,
        ExitStack() as clients,
    ):
        service.wait_for_workers()
        carried: dict[int, http.client.HTTPResponse] = {}
        while len(carried) < 2:
            client = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
            clients.callback(client.close)
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "chunks": 5000}
            client.request("POST", "/v1/chat/completions", json.dumps({**body, "delay_s": 0.05}))
            own_port = client.sock.getsockname()[1]
            carried[worker_of(service, own_port)] = client.getresponse()
        hung, other = carried
        os.kill(hung, signal.SIGSTOP)
        while hung in service.pids():
            assert carried[other].readline()
        service.wait_for_workers()
        assert service.status()["gateway"]["restarts"] == 1
        assert carried[other].readline()


def worker_of(service: ServiceProcess, client_port: int) -> int:
    """The pid of the gateway worker that has taken this connection."""
    workers = [pid for name, pid in service.records().items() if name.startswith("gateway-")]
    while True:
        for pid in workers:
            peers = {each.raddr.port for each in psutil.Process(pid).net_connections() if each.raddr}
            if client_port in peers:
                return pid


def test_after_kill_9_of_everything_what_does_not_fit_the_next_start_is_ended(tmp_path: Path) -> None:
    with running_service("--replicas", "2", state_dir=tmp_path) as first:
        port = first.port
        replicas = {name: pid for name, pid in first.records().items() if name.startswith("r")}
        first.process.kill()
        first.process.wait()
        assert all(alive(pid) for pid in replicas.values())
        flags = ("--replicas", "1", "--max-model-len", "1024", "--port", str(port))
        with running_service(*flags, state_dir=tmp_path) as second:
            assert second.chat()[0] == 200
            assert not any(alive(pid) for pid in replicas.values())


def test_two_workers_share_the_port_and_the_books() -> None:
    with running_service("--replicas", "1", "--gateway-workers", "2") as service:
        for _ in range(20):
            assert service.chat(max_tokens=1)[0] == 200
        metrics = service.ask("GET", "/metrics")[2].decode()
        counted = [line for line in metrics.splitlines() if line.startswith("autoglm_requests_total{")]
        assert sum(float(line.rpartition(" ")[2]) for line in counted if 'outcome="ok"' in line) == 20


def test_ctrl_c_while_a_model_is_downloaded_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:  # one that never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        with running_service("--engine", "llama_cpp", "--model", "org/name", serving=False) as service:
            asked, _ = hub.accept()
            with asked:
                service.process.send_signal(signal.SIGINT)
                assert service.process.wait(timeout=10) == ExitCode.STOPPED_AT_ONCE


def test_a_request_in_flight_is_finished_before_the_service_stops() -> None:
    with running_service("--replicas", "1") as service, ExitStack() as held:
        replies: list[bytes] = []
        connection = held.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))
        connection.sendall(long_stream(400))
        replies.append(connection.recv(65536))  # the stream has begun
        service.process.send_signal(signal.SIGTERM)
        while data := connection.recv(65536):
            replies.append(data)
        assert b"data: [DONE]" in b"".join(replies)[-100:]
        assert service.process.wait(timeout=60) == ExitCode.OK


def test_a_process_managers_stop_fails_readiness_first_and_serves_new_connections_for_a_while() -> None:
    with running_service("--replicas", "1", "--lame-duck-s", "4") as service:
        kept = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        service.process.send_signal(signal.SIGTERM)
        while (answer := service.ask("GET", "/ready"))[0] == 200:
            pass
        assert (answer[0], json.loads(answer[2])["status"]) == (503, "stopping")
        status, headers, _ = service.chat()
        assert (status, headers["connection"]) == (200, "close")
        kept.request("GET", "/health")
        assert kept.getresponse().getheader("connection") == "close"
        assert service.process.wait(timeout=60) == ExitCode.OK
        assert any("new connections are served" in str(entry.get("message")) for entry in service.log)


def test_serving_on_takes_from_the_time_to_drain_and_who_is_cut_is_told() -> None:
    flags = ("--replicas", "1", "--lame-duck-s", "1", "--drain-timeout-s", "2")
    with running_service(*flags) as service, ExitStack() as held:
        connection = held.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))
        connection.sendall(long_stream(16000))
        told = [connection.recv(65536)]
        service.process.send_signal(signal.SIGTERM)
        begun_s = time.monotonic()
        while data := connection.recv(65536):
            told.append(data)
        assert b'"shutting_down"' in b"".join(told)[-500:]
        assert service.process.wait(timeout=60) == ExitCode.OK
        assert time.monotonic() - begun_s < 2 + 9  # the rest is for words, engines, and a busy machine


def test_a_second_ctrl_c_stops_at_once() -> None:
    with (
        running_service("--replicas", "1") as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection,
    ):
        connection.sendall(long_stream(4000))
        connection.recv(1)
        service.process.send_signal(signal.SIGINT)
        wait_for_log(service, "stopping")
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=20) == ExitCode.STOPPED_AT_ONCE


def long_stream(tokens: int) -> bytes:
    """The bytes of a request whose answer takes its time."""
    message = {"role": "user", "content": "hi"}
    body = {"messages": [message], "max_tokens": tokens, "stream": True, "ignore_eos": True}
    data = json.dumps(body).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        len(data),
        data,
    )


def wait_for_log(service: ServiceProcess, text: str) -> None:
    seen = threading.Event()
    while not any(text in str(entry.get("message")) for entry in service.log):
        assert service.process.poll() is None or service.log
        seen.wait(0.01)


def test_a_taken_port_names_the_program_that_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--port", str(port))
    assert done.returncode == ExitCode.PORT_TAKEN
    assert f"Port {port} is taken by" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "--port" in done.stderr


def test_a_second_service_in_the_same_state_directory_is_told_so(tmp_path: Path) -> None:
    with running_service("--replicas", "1", state_dir=tmp_path) as service:
        done = serve("--port", "0", "--state-dir", str(tmp_path))
    assert done.returncode == ExitCode.STATE_DIR_BUSY
    assert f"pid {service.process.pid}" in done.stderr


def test_a_model_that_is_none_leaves_nothing_running(tmp_path: Path) -> None:
    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"GGUF but not really")
    done = serve("--port", "0", "--model", str(broken), "--state-dir", str(tmp_path / "state"))
    assert done.returncode == ExitCode.MODEL
    assert str(broken) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "state" / "replicas").glob("*.json"))


@pytest.mark.parametrize("in_the_way", [".deployment.json.tmp", "loads"])
def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).mkdir()
    done = serve("--port", "0", "--state-dir", str(tmp_path))
    assert done.returncode == ExitCode.CONFIG
    assert f"The state directory {tmp_path} cannot be used.\nWhy: Is a directory\nNext: " in done.stderr
    assert "Traceback" not in done.stderr


def test_status_tells_a_person_and_a_script(tmp_path: Path) -> None:
    with running_service("--replicas", "1") as service:
        asked = autoglm("status", "--port", str(service.port), "--json")
        told = autoglm("status", "--port", str(service.port))
        refused = autoglm("restart", "--port", str(service.port), "--replica", "9")
    assert "There is no replica r9. There are r0" in refused.stderr
    assert "Next: `autoglm status` shows what there is" in refused.stderr
    status = json.loads(asked.stdout)
    assert set(status) >= {"url", "version", "models", "replicas"}
    assert set(status["replicas"][0]) >= {
        *("id", "model", "engine", "state", "pid", "port", "gpus", "in_flight", "restarts", "last_exit"),
    }
    assert "r0" in told.stdout
    gone = autoglm("status", "--port", str(service.port))
    assert gone.returncode == ExitCode.UNREACHABLE
    assert "autoglm serve" in gone.stderr


def alive(pid: int) -> bool:
    """It runs: a process that nobody has collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def picture_of(path: Path) -> list[dict[str, object]]:
    url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    """`autoglm serve`, expected to end by itself."""
    return autoglm("serve", *flags)


def autoglm(*arguments: str) -> subprocess.CompletedProcess[str]:
    source = Path(__file__).resolve().parents[2] / "src"
    return subprocess.run(
        [sys.executable, "-m", "autoglm_serve.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
