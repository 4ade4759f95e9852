"""The verbs that talk to a running service, each as a person types it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ExitCode
from tests.process.service_process import ServiceProcess, running_service

pytestmark = [pytest.mark.process, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("--no-speech", "--replicas", "1") as running:
        yield running


def autoglm(
    service: ServiceProcess, verb: str, *argv: str, said: str = ""
) -> subprocess.CompletedProcess[str]:
    place = ("--port", str(service.port))
    folder = ("--state-dir", str(service.state_dir)) if verb in ("logs", "stop") else ()
    return subprocess.run(
        [sys.executable, "-m", "autoglm_serve", verb, *place, *folder, *argv],
        capture_output=True,
        text=True,
        input=said,
        timeout=60,
        cwd=service.state_dir,
        env={name: value for name, value in os.environ.items() if not name.startswith("AUTOGLM_")},
    )


def test_chat_shows_the_answer_to_one_question(service: ServiceProcess) -> None:
    told = autoglm(service, "chat", "你是谁？")
    assert told.returncode == ExitCode.OK, told.stderr
    assert "AutoGLM" in told.stdout


def test_chat_reads_a_question_from_a_pipe_and_shows_a_picture(service: ServiceProcess) -> None:
    screen = REPOSITORY / "examples" / "screen.png"
    told = autoglm(service, "chat", "--image", str(screen), said="点击微信\n")
    assert 'do(action="Tap"' in told.stdout, told.stderr


def test_chat_says_what_is_wrong_in_the_services_words(service: ServiceProcess) -> None:
    told = autoglm(service, "chat", "--model", "gpt-9", "hello")
    assert told.returncode == ExitCode.UNREACHABLE
    assert "gpt-9" in told.stderr
    assert "Traceback" not in told.stderr


def test_models_names_what_is_served(service: ServiceProcess) -> None:
    told = autoglm(service, "models")
    assert "the bundled demo model" in told.stdout
    assert f"served at 127.0.0.1:{service.port}: autoglm-phone-demo" in told.stdout


def test_verify_finds_nothing_wrong_with_the_demo_model(service: ServiceProcess) -> None:
    url = f"http://127.0.0.1:{service.port}"
    told = subprocess.run(
        [sys.executable, "-m", "autoglm_serve", "verify", "--url", url, "--long-context", "1500"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert told.returncode == ExitCode.OK, told.stdout
    assert "6 of 6 golden screens" in told.stdout


def test_ps_is_status(service: ServiceProcess) -> None:
    assert "r0" in autoglm(service, "ps").stdout
    assert autoglm(service, "ps").returncode == ExitCode.OK


def test_logs_shows_one_replica_or_all(service: ServiceProcess) -> None:
    assert "loading model" in autoglm(service, "logs", "--replica", "0", "-n", "1000").stdout
    assert "r0 " in autoglm(service, "logs").stdout
    missing = autoglm(service, "logs", "--replica", "r9")
    assert missing.returncode == ExitCode.UNREACHABLE
    assert "There are: " in missing.stderr


def test_logs_follows_what_is_written_until_ctrl_c(service: ServiceProcess) -> None:
    log = service.state_dir / "logs" / "r0.log"
    argv = [sys.executable, "-m", "autoglm_serve", "logs", "--follow", "-n", "1", "--replica", "0"]
    argv += ["--port", str(service.port), "--state-dir", str(service.state_dir)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()  # it has begun
        with log.open("a") as added:
            added.write("a line of later\n")
        assert any(line == "a line of later\n" for line in follower.stdout)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=10) == ExitCode.STOPPED_AT_ONCE


def test_stop_waits_until_the_service_has_ended() -> None:
    with running_service("--no-speech", "--replicas", "1") as service:
        assert autoglm(service, "stop").returncode == ExitCode.OK
        assert service.process.wait(timeout=5) == ExitCode.OK
        again = autoglm(service, "stop")
        assert again.returncode == ExitCode.UNREACHABLE
        assert "No autoglm service runs" in again.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_and_flags() -> None:
    ask = 'COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _autoglm; echo "${COMPREPLY[@]}"'
    script = f'eval "$({sys.executable} -m autoglm_serve completion bash)"\n{ask}'

    def completed(typed: str) -> str:
        done = subprocess.run(
            ["bash", "-c", script, "bash", typed], capture_output=True, text=True, timeout=30
        )
        return done.stdout.strip()

    assert completed("autoglm sta") == "status"
    assert completed("autoglm serve --max-queue-") == "--max-queue-mb"
