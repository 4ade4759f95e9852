"""Changes, and what happens to them on the way: a signal, a kill, a mistake, a version that does not work."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ExitCode
from autoglm_serve.launch import takeover, unix_socket
from tests.process.clients import asking
from tests.process.service_process import PATIENCE_S, ServiceProcess, environment, running_service
from tests.process.test_service import alive, all_ready, autoglm, wait_for_log

pytestmark = pytest.mark.process

ONE = ("--replicas", "1", "--gateway-workers", "1", "--no-speech")


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s


def ended(*flags: str, state_dir: Path, path: Sequence[Path] = ()) -> int:
    """The exit status of a service that ends by itself; what runs in its directory is left alone."""
    argv = [sys.executable, "-m", "autoglm_serve", "serve", *flags, "--state-dir", str(state_dir)]
    done = subprocess.run(
        argv, env=environment(path), stderr=subprocess.DEVNULL, timeout=PATIENCE_S, check=False
    )
    return done.returncode


def workers(service: ServiceProcess) -> list[int]:
    """Of those that are replaced when they end."""
    return [pid for name, pid in service.records().items() if name.startswith("gateway") and alive(pid)]


BROKEN = {
    "as it adopts": "import autoglm_serve.control.fleet.adoption as at; at.claimed = broken",
    "as it begins to run": "import autoglm_serve.service.run as at; at.Service.run = broken",
}


@pytest.mark.parametrize("when", BROKEN)
def test_a_new_version_that_ends_before_it_is_in_control_leaves_the_old_one_in_control(
    tmp_path: Path, when: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "async def broken(*_, **__): raise RuntimeError('a bug of the new version')\n"
        f"if 'serve' in sys.argv:\n    {BROKEN[when]}\n"
    )
    with running_service(*ONE, state_dir=tmp_path / "state") as first, asking(first) as clients:
        first.wait_for_replicas(all_ready)
        before = first.records()
        again = (*ONE, "--takeover", "--port", str(first.port))
        assert ended(*again, state_dir=first.state_dir, path=[site]) != ExitCode.OK
        wait_for_log(first, "which was to take over, has ended before it did; going on")
        assert first.records()["r0"] == before["r0"]
        first.wait_for_workers()
        assert autoglm("restart", "--port", str(first.port)).returncode == ExitCode.OK
        with running_service(*again, state_dir=first.state_dir) as third:  # one that works still can
            assert first.process.wait(timeout=PATIENCE_S) == ExitCode.OK
            third.wait_for_replicas(all_ready)
            clients.wait_for(10)
            clients.stop()
    assert clients.failures == []


def test_who_asked_too_long_ago_is_not_left_to(tmp_path: Path) -> None:
    with running_service(*ONE, state_dir=tmp_path) as service, socket.socket(socket.AF_UNIX) as line:
        line.connect(unix_socket.address(tmp_path / "admin.sock"))
        connection = http.client.HTTPConnection("localhost")
        connection.sock = line
        connection.request("POST", f"{takeover.PATH}?successor={os.getpid()}&until_s={time.monotonic() - 1}")
        answer = connection.getresponse()
        assert (answer.status, b"too late" in answer.read()) == (409, True)
        assert service.chat()[0] == 200


def test_a_mistake_in_the_flags_ends_nothing_that_a_killed_control_plane_has_left(tmp_path: Path) -> None:
    with running_service(*ONE, state_dir=tmp_path) as first:
        first.wait_for_workers()
        before = first.records()
        first.process.kill()
        first.process.wait()
        port = ("--port", str(first.port))
        wrong = (*ONE, *port, "--engine", "llama_cpp", "--model", str(tmp_path / "none.gguf"))
        assert ended(*wrong, state_dir=tmp_path) != ExitCode.OK
        assert all(alive(pid) for pid in before.values())
        assert first.chat()[0] == 200
        with running_service(*ONE, *port, state_dir=tmp_path) as third:
            assert third.records() == before


def test_a_control_plane_killed_while_workers_are_replaced_leaves_none_too_many(tmp_path: Path) -> None:
    with running_service(*ONE, state_dir=tmp_path) as first:
        first.wait_for_workers()
        argv = [sys.executable, "-m", "autoglm_serve.cli.main", "restart", "--workers"]
        with subprocess.Popen([*argv, "--port", str(first.port)], stderr=subprocess.DEVNULL) as restart:
            eventually(lambda: len(workers(first)) == 2)
            first.process.kill()
            first.process.wait()
            restart.wait()
        with running_service(*ONE, "--port", str(first.port), state_dir=tmp_path) as second:
            second.wait_for_workers()
            eventually(lambda: len(workers(second)) == 1)
            assert second.status()["gateway"]["workers"] == 1
            assert autoglm("restart", "--workers", "--port", str(first.port)).returncode == ExitCode.OK


def test_settings_that_change_again_while_they_are_taken_are_taken_too(tmp_path: Path) -> None:
    settings = tmp_path / "autoglm.toml"
    settings.write_text("replicas = 2\nspeech = false\n")
    with running_service("--config", str(settings), state_dir=tmp_path / "state") as service:
        settings.write_text("replicas = 2\nspeech = false\nmax_model_len = 2048\n")
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "the settings have changed")
        settings.write_text("replicas = 1\nspeech = false\nmax_model_len = 1024\n")
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: [each["state"] for each in service.replicas()] == ["ready"])
        argv = Path(f"/proc/{service.records()['r0']}/cmdline").read_bytes().split(b"\0")
        assert argv[argv.index(b"--max-model-len") + 1] == b"1024"


def holds_back(pid: int, number: signal.Signals) -> bool:
    """A signal that comes now waits to be heard."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_new_settings_are_heard_of_from_the_first_moment(tmp_path: Path) -> None:
    settings = tmp_path / "autoglm.toml"
    settings.write_text("replicas = 1\nspeech = false\ngateway_workers = 1\n")
    flags = ("--config", str(settings))
    with running_service(*flags, state_dir=tmp_path / "state", serving=False) as service:
        eventually(lambda: holds_back(service.process.pid, signal.SIGHUP))
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "nothing has changed in the settings")
        assert service.stop() == ExitCode.OK


def test_a_stop_that_comes_while_it_is_decided_what_to_run_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:  # one that never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        flags = ("--engine", "llama_cpp", "--model", "org/name")
        with running_service(*flags, state_dir=tmp_path, serving=False) as service:
            asked, _ = hub.accept()
            with asked:
                assert service.stop() == ExitCode.STOPPED_AT_ONCE


BLOWS = {
    "its replica is killed": ("r0", signal.SIGKILL),
    "its replica is told to end": ("r0", signal.SIGTERM),
    "the other replica is killed": ("r1", signal.SIGKILL),
    "its worker is killed": ("gateway", signal.SIGKILL),
    "its worker is told to end": ("gateway", signal.SIGTERM),
    "its worker is told to retire": ("gateway", signal.SIGQUIT),
    "there may be new settings": ("control", signal.SIGHUP),
}
STEPS = ("r0: draining", "r0: ready again", "r1: draining", "r1: ready again", "gateway worker 0: pid")


def is_over(service: ServiceProcess) -> bool:
    """Whether the undertaking has ended, as far as a worker is there to tell."""
    try:
        status, _, body = service.administer("GET", "/admin/steps")
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and json.loads(body)["good"] is not None


def strike(service: ServiceProcess, whom: str, number: signal.Signals) -> None:
    pids = {**service.records(), "control": service.process.pid}
    for name, pid in pids.items():
        if name == whom or name.startswith(f"{whom}-"):
            os.kill(pid, number)


@pytest.mark.slow
@pytest.mark.parametrize("blow", BLOWS)
def test_a_restart_survives_a_blow_at_every_step_and_the_next_one_goes_well(
    tmp_path: Path, blow: str
) -> None:
    flags = ("--replicas", "2", "--gateway-workers", "1", "--no-speech")
    with running_service(*flags, state_dir=tmp_path) as service:
        for step in STEPS:
            service.wait_for_replicas(all_ready)
            del service.log[:]
            status, _, body = service.administer(
                "POST", "/admin/restart", {"replicas": None, "workers": True}
            )
            assert status == 202, body
            wait_for_log(service, step)
            strike(service, *BLOWS[blow])
            eventually(lambda: is_over(service))
            service.wait_for_replicas(all_ready)
            eventually(lambda: len(workers(service)) == 1)
            assert service.chat()[0] == 200
        again = autoglm(
            "restart", "--workers", "--replica", "0", "--replica", "1", "--port", str(service.port)
        )
        assert again.returncode == ExitCode.OK, again.stdout + again.stderr
        assert {"r0", "r1"} == {name for name in service.records() if name in ("r0", "r1", "r2", "r3")}


def test_it_serves_where_few_files_may_be_open(tmp_path: Path) -> None:
    few = ("prlimit", "--nofile=64:64", "--")
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit here")
    with running_service(*ONE, state_dir=tmp_path, inside=few) as service:
        service.wait_for_replicas(all_ready)
        os.kill(service.records()["r0"], signal.SIGKILL)
        assert service.chat()[0] == 200
        assert service.stop() == ExitCode.OK
