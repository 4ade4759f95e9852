"""The verb against a real server, well and broken in every way: what is counted, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.errors import ExitCode
from tests.fakes.engine_process import running_engine

SMALL = ("--image", "56x56", "--system-tokens", "20", "--seconds", "1", "--warm-up", "0.2", "--sessions", "3")


def bench(url: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoglm_serve", "bench", "--url", url, "--json", *SMALL, *argv],
        capture_output=True,
        text=True,
        timeout=60,
    )


def first_run(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)["runs"][0]
    return found


def test_a_closed_loop_counts_steps_and_times(tmp_path: Path) -> None:
    with running_engine("--chunks", "8", "--delay-s", "0.01", "--first-delay-s", "0.05") as engine:
        done = bench(engine.url, "--html", str(tmp_path / "report.html"))
    assert done.returncode == ExitCode.OK, done.stderr
    run = first_run(done)
    assert run["errors"] == 0
    assert run["requests"] >= 6
    assert 0.05 <= run["ttft"]["p50_s"] < 0.5
    assert run["ttft"]["p50_s"] + 0.06 < run["step"]["p50_s"] < 1.0
    assert "steps/s" in (tmp_path / "report.html").read_text()


def test_an_open_loop_sends_at_its_rate_whoever_is_done() -> None:
    """With answers of 0.5 s and one at a time, requests come late, and that is in their times."""
    with running_engine("--first-delay-s", "0.4") as engine:
        done = bench(engine.url, "--rate", "20", "--sessions", "1", "--seconds", "2", "--workload", "chat")
    assert first_run(done)["ttft"]["p50_s"] > 0.6


def test_two_addresses_take_turns_and_are_compared() -> None:
    with running_engine("--first-delay-s", "0.02") as fast, running_engine("--first-delay-s", "0.2") as slow:
        done = bench(fast.url, "--compare", slow.url, "--rounds", "2")
    told = json.loads(done.stdout)
    assert [run["label"][-2:] for run in told["runs"]] == ["#1", "#1", "#2", "#2"]
    ttft = next(one for one in told["ratios"] if one["what"] == "TTFT p50")
    assert ttft["median"] > 2.0


def test_a_sweep_draws_a_curve(tmp_path: Path) -> None:
    page = tmp_path / "curve.html"
    with running_engine() as engine:
        done = bench(engine.url, "--sweep", "sessions=1,2", "--html", str(page), "--workload", "vision")
    assert [run["label"] for run in json.loads(done.stdout)["runs"]] == ["1 sessions", "2 sessions"]
    assert page.read_text().count("<svg") == 3


@pytest.mark.parametrize(
    "fault", ["reset:2", "garbage:2", "error:2", "status:500", "hang:1", "page", "end:1"]
)
def test_what_goes_wrong_is_counted_by_kind_and_never_hangs(fault: str) -> None:
    with running_engine("--fault", fault) as engine:
        done = bench(engine.url, "--timeout", "0.5", "--model", "faulty")
    assert done.returncode == ExitCode.FAILED
    run = first_run(done)
    assert run["errors"] == run["requests"] > 0
    assert sum(run["errors_by_kind"].values()) == run["errors"]


def test_an_address_that_is_down_is_told_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        done = bench(f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert done.returncode == ExitCode.UNREACHABLE
    assert "Nothing answers" in done.stderr


def test_an_address_that_does_not_say_what_it_serves_is_asked_for_no_traceback() -> None:
    with running_engine("--fault", "page") as engine:
        done = bench(engine.url)
    assert done.returncode == ExitCode.UNREACHABLE
    assert "Name one with --model" in done.stderr


def test_a_sweep_that_is_interrupted_keeps_what_it_has() -> None:
    argv = [sys.executable, "-m", "autoglm_serve", "bench", "--json", *SMALL, "--sweep", "sessions=1,2,3"]
    with running_engine() as engine:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            [*argv, "--url", engine.url, "--seconds", "30", "--warm-up", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            engine.seen(ended=30, timeout_s=30)
            process.send_signal(signal.SIGINT)
            told = json.loads(process.communicate(timeout=30)[0])
    assert [run["label"] for run in told["runs"]] == ["1 sessions"]
    assert told["runs"][0]["requests"] > 0


def test_what_is_not_understood_is_said(tmp_path: Path) -> None:
    with running_engine() as engine:
        for argv in (["--image", "9"], ["--sweep", "x=1"], ["--workload", "replay"]):
            done = bench(engine.url, *argv)
            assert done.returncode == ExitCode.CONFIG
            assert "Next: " in done.stderr
