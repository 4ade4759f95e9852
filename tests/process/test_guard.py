"""A guarded service as a person runs it: keys from the command line, the admin API, who is let in."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.launch import admin_token
from tests.process.service_process import ServiceProcess, environment, running_service

pytestmark = pytest.mark.process
LEAST = ("--replicas", "1", "--no-speech")
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def autoglm(tmp_path: Path) -> Run:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = (sys.executable, "-m", "autoglm_serve", *words)
        env = {**environment(()), "HOME": str(tmp_path), **more}
        return subprocess.run(
            argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def chat(service: ServiceProcess, secret: str) -> int:
    return service.ask("POST", "/v1/chat/completions", CHAT, {"Authorization": f"Bearer {secret}"})[0]


IN_A_ROW = 12
"""Answers after which both workers have been asked, in all likelihood."""


def until_answered(service: ServiceProcess, secret: str, status: int) -> None:
    """Every worker reads the keys in its own time: return when all have."""
    seen = 0
    for _ in range(400):
        seen = seen + 1 if chat(service, secret) == status else 0
        if seen == IN_A_ROW:
            return
    raise AssertionError(f"never {status}")


def test_keys_of_a_running_service_and_of_the_next(tmp_path: Path, autoglm: Run) -> None:
    state = tmp_path / "state"
    with running_service(*LEAST, "--gateway-workers", "2", state_dir=state) as service:
        assert chat(service, "EMPTY") == 200
        port = str(service.port)
        made = autoglm("keys", "create", "--owner", "ann", "--port", port)
        secret = made.stdout.split()[0]
        until_answered(service, "EMPTY", 401)
        until_answered(service, secret, 200)
        assert {chat(service, secret) for _ in range(6)} == {200}
        assert {chat(service, "EMPTY") for _ in range(6)} == {401}
        listed = json.loads(autoglm("keys", "list", "--json", "--port", port).stdout)
        assert [key["owner"] for key in listed] == ["ann"]
        files = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
        assert secret.encode() not in files
        assert secret not in json.dumps(service.log)
        for pid in service.pids():
            os.kill(pid, signal.SIGKILL)
        service.process.kill()
        service.process.wait()
    with running_service(*LEAST, state_dir=state) as service:
        assert (chat(service, "EMPTY"), chat(service, secret)) == (401, 200)
        rotated = autoglm("keys", "rotate", listed[0]["id"], "--port", str(service.port)).stdout.split()[0]
        until_answered(service, secret, 401)
        assert chat(service, rotated) == 200
        assert autoglm("keys", "revoke", listed[0]["id"], "--port", str(service.port)).returncode == 0
        until_answered(service, rotated, 401)
        assert chat(service, "EMPTY") == 401


def test_a_variable_holds_keys_that_no_engine_sees(tmp_path: Path, autoglm: Run) -> None:
    secret = "0123456789abcdef-of-a-variable"
    with running_service(*LEAST, state_dir=tmp_path, environ={"AUTOGLM_KEYS": secret}) as service:
        assert (chat(service, "EMPTY"), chat(service, secret)) == (401, 200)
        for pid in service.pids():
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def refused(*flags: str, **environ: str) -> tuple[int, str]:
    argv = (sys.executable, "-m", "autoglm_serve", "serve", *LEAST, "--port", "0", *flags)
    env = {**environment(()), **environ}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_without_keys_no_network_is_listened_to_unless_that_is_said(tmp_path: Path) -> None:
    status, said = refused("--host", "0.0.0.0", "--state-dir", str(tmp_path))
    assert status == 3
    assert "--open-to-network" in said
    assert "autoglm keys create" in said
    with running_service(*LEAST, "--host", "0.0.0.0", "--open-to-network", state_dir=tmp_path) as service:
        assert chat(service, "EMPTY") == 200
        assert any("no API keys" in entry["message"] for entry in service.log)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1"),
        ("0123456789abcdef\n0123456789abcdef\n", "twice"),
        ('{"secret": "0123456789abcdef", "scopes": ["root"]}', "scopes"),
        (None, "no file of keys"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_told_before_anything_runs(
    tmp_path: Path, text: str | None, told: str
) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    status, said = refused("--keys-file", str(file), "--state-dir", str(tmp_path / "state"))
    assert (status, told in said) == (3, True), said
    assert "Traceback" not in said


def test_the_command_line_reaches_the_admin_api_and_a_stranger_does_not(tmp_path: Path, autoglm: Run) -> None:
    with running_service(*LEAST, state_dir=tmp_path / "state") as service:
        port = str(service.port)
        assert autoglm("status", "--port", port).returncode == 0  # the state directory is found by the port
        assert autoglm("status", "--port", port, "--state-dir", str(service.state_dir)).returncode == 0
        assert service.ask("GET", "/admin/status")[0] == 404
        assert service.administer("GET", "/admin/status")[0] == 200
        token = service.state_dir / "admin-token"
        assert token.stat().st_mode & 0o777 == 0o600
        stranger = autoglm("status", "--port", port, "--state-dir", str(tmp_path / "none"))
        assert (stranger.returncode, "AUTOGLM_API_KEY" in stranger.stderr) == (9, True)
        by_key = autoglm(
            "status",
            *("--port", port, "--state-dir", str(tmp_path / "none")),
            AUTOGLM_API_KEY=admin_token.read(service.state_dir),
        )
        assert by_key.returncode == 0


def test_another_account_finds_no_admin_api(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another account")
    with running_service(*LEAST, state_dir=tmp_path) as service:
        script = (
            "import http.client, os, sys\n"
            "def status(token):\n"
            "    c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n"
            "    c.request('GET', '/admin/status', headers={'x-api-key': token})\n"
            "    return c.getresponse().status\n"
            "path = sys.argv[2] + '/admin-token'\n"
            "print(status(open(path).read().strip()))\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "print(os.access(path, os.R_OK), status('none'))\n"
        )
        argv = (sys.executable, "-c", script, str(service.port), str(tmp_path))
        done: Any = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == ["200", "False", "404"]


def test_usage_outlives_every_process_and_is_booked_once(tmp_path: Path, autoglm: Run) -> None:
    state = tmp_path / "state"
    keys = ("--state-dir", str(state))
    secret = autoglm("keys", "create", "--owner", "ann", "--requests-per-day", "8", *keys).stdout.split()[0]
    with running_service(*LEAST, "--gateway-workers", "2", state_dir=state) as service:
        assert [chat(service, secret) for _ in range(5)] == [200] * 5
        service.process.kill()
        service.process.wait()
        for pid in service.pids():
            os.kill(pid, signal.SIGKILL)
    with running_service(*LEAST, "--gateway-workers", "2", state_dir=state) as service:
        assert [chat(service, secret) for _ in range(4)] == [200, 200, 200, 429]
        service.stop()
    [told] = json.loads(autoglm("usage", "--json", "--by", "owner", *keys).stdout)
    assert (told["owner"], told["requests"], told["failed"]) == ("ann", 8, 0)
    assert told["completion_tokens"] > 0
    assert autoglm("usage", "--csv", *keys).stdout.splitlines()[0].startswith("day,key,owner,model,requests")
    assert "ann" in autoglm("usage", *keys).stdout


def test_a_limit_is_exact_over_workers(tmp_path: Path, autoglm: Run) -> None:
    made = autoglm("keys", "create", "--requests-per-day", "20", "--state-dir", str(tmp_path / "state"))
    with (
        running_service(*LEAST, "--gateway-workers", "3", state_dir=tmp_path / "state") as service,
        ThreadPoolExecutor(8) as clients,
    ):
        got = list(clients.map(lambda _: chat(service, made.stdout.split()[0]), range(40)))
    assert (got.count(200), got.count(429)) == (20, 20)
