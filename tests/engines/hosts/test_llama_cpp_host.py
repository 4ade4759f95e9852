"""The process of a llama.cpp replica, with the bundled demo model."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts
from autoglm_serve.demo import demo_model
from autoglm_serve.engines.llama_cpp import HostExit, LlamaCpp
from autoglm_serve.launch.ports import PortLease
from tests.fakes.addresses import at
from tests.fakes.engine_process import REPOSITORY

pytestmark = pytest.mark.process

DEMO = demo_model()
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
QUESTION = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}


@dataclass(frozen=True, slots=True)
class Host:
    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body=json.dumps(body) if body is not None else None)
            with connection.getresponse() as response:
                return response.status, response.read()

    def chat(self, **fields: Any) -> dict[str, Any]:
        status, body = self.ask("POST", "/v1/chat/completions", QUESTION | fields)
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer


def member(*, path: Path = DEMO.gguf, mmproj: Path | None = DEMO.mmproj, **plan: Any) -> Member:
    files = ModelFiles(reference="demo", format=ModelFormat.GGUF, path=path, mmproj=mmproj)
    return Member(
        names=("demo",),
        files=files,
        plan=Plan(engine="llama.cpp", placements=(Placement(),), threads=1, **plan),
    )


def spawn(asked: Member, port: int) -> subprocess.Popen[str]:
    argv = LlamaCpp().command(asked, Placement(), at(port)).argv
    return subprocess.Popen(argv, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


@contextmanager
def running_host(asked: Member) -> Iterator[Host]:
    """The host, once it says that it is ready. Its port stays leased, as under the supervisor."""
    with PortLease() as lease, spawn(asked, lease.port) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            assert any("ready on http" in line for line in lines)
            reader = threading.Thread(target=process.stderr.read, daemon=True)
            reader.start()
            yield Host(process, lease.port)
        finally:
            process.kill()
            reader.join()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with running_host(member(max_model_len=1024, max_num_seqs=2, image_max_tokens=64)) as running:
        yield running


def ended(asked: Member, port: int) -> tuple[int, Diagnosis]:
    """Exit status and diagnosis of a host that cannot start."""
    with spawn(asked, port) as process:
        _, log = process.communicate(timeout=30)
    facts = ExitFacts(
        code=process.returncode, signal=None, was_ready=False, log_tail=tuple(log.splitlines()[-200:])
    )
    return process.returncode, LlamaCpp().diagnose(facts)


# --- serving


def test_it_is_healthy_and_serves_under_its_name(host: Host) -> None:
    assert host.ask("GET", "/health")[0] == 200
    assert json.loads(host.ask("GET", "/v1/models")[1])["data"][0]["id"] == "demo"
    assert b"llamacpp:requests_processing" in host.ask("GET", "/metrics")[1]


def test_it_answers_a_chat(host: Host) -> None:
    answer = host.chat(max_tokens=5)
    assert answer["usage"]["completion_tokens"] <= 5
    assert "reasoning_content" not in answer["choices"][0]["message"]


def test_every_slot_has_the_whole_context(host: Host) -> None:
    model = json.loads(host.ask("GET", "/v1/models")[1])["data"][0]
    assert model["meta"]["n_ctx"] == 1024


def test_a_stream_ends_with_done(host: Host) -> None:
    status, body = host.ask("POST", "/v1/chat/completions", QUESTION | {"stream": True, "max_tokens": 3})
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


def test_its_own_page_and_slots_are_off(host: Host) -> None:
    assert host.ask("GET", "/")[0] == 404
    assert host.ask("GET", "/slots")[0] == 501
    assert host.ask("POST", "/props", {})[0] == 501


def test_it_listens_on_loopback_only(host: Host) -> None:
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = {line.split()[1] for line in tables.splitlines()[1:] if line.split()[3:4] == ["0A"]}
    own = {address for address in listening if address.endswith(f":{host.port:04X}")}
    assert own == {f"0100007F:{host.port:04X}"}


# --- ending


def test_sigterm_lets_what_is_in_flight_finish() -> None:
    with running_host(member()) as host:
        with closing(http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)) as connection:
            body = QUESTION | {"stream": True, "max_tokens": 400, "ignore_eos": True}
            connection.request("POST", "/v1/chat/completions", body=json.dumps(body))
            with connection.getresponse() as response:
                response.read(200)
                host.process.terminate()
                assert response.read().endswith(b"data: [DONE]\n\n")
        assert host.process.wait(timeout=10) == 0


def test_a_second_sigterm_does_not_wait() -> None:
    with running_host(member()) as host:
        with closing(http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)) as connection:
            body = QUESTION | {"stream": True, "max_tokens": 4000, "ignore_eos": True}
            connection.request("POST", "/v1/chat/completions", body=json.dumps(body))
            with connection.getresponse() as response:
                response.read(200)
                while host.process.poll() is None:
                    host.process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        host.process.wait(timeout=0.05)
                with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                    response.read()
        assert host.process.wait(timeout=10) == 0


def test_an_idle_host_ends_at_once() -> None:
    with running_host(member()) as host:
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(timeout=5) == 0


# --- starts that cannot succeed


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with PortLease() as lease:
        status, diagnosis = ended(member(path=tmp_path / "none.gguf"), lease.port)
    assert status == HostExit.MODEL_NOT_FOUND
    assert diagnosis.cause is ExitCause.MODEL_NOT_FOUND


@pytest.mark.parametrize("kept", [0, 3, 5000, 0.5])
def test_a_model_that_is_cut_short(tmp_path: Path, kept: float) -> None:
    cut = tmp_path / "cut.gguf"
    whole = DEMO.gguf.read_bytes()
    cut.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with PortLease() as lease:
        status, diagnosis = ended(member(path=cut), lease.port)
    assert status == HostExit.LOAD_FAILED
    assert diagnosis.cause is ExitCause.MODEL_UNREADABLE
    assert not diagnosis.retryable


def test_a_tower_that_is_no_tower(tmp_path: Path) -> None:
    tower = tmp_path / "mmproj.gguf"
    shutil.copy(DEMO.gguf, tower)
    with PortLease() as lease:
        status, diagnosis = ended(member(mmproj=tower), lease.port)
    assert status == HostExit.LOAD_FAILED
    assert str(tower) in diagnosis.summary


def test_a_tower_given_as_the_model() -> None:
    with PortLease() as lease:
        _, diagnosis = ended(member(path=DEMO.mmproj, mmproj=None), lease.port)
    assert "vision tower" in diagnosis.summary


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, diagnosis = ended(member(), other.getsockname()[1])
    assert status == HostExit.PORT_TAKEN
    assert diagnosis.retryable


def test_a_flag_that_it_does_not_know() -> None:
    with PortLease() as lease:
        status, diagnosis = ended(member(engine_args=("--no-such-flag",)), lease.port)
    assert (status, diagnosis.cause) == (2, ExitCause.BAD_FLAG)
