"""What the benchmark of blows says of answers, pauses and starts; and one short run of it."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.chaos.client import Answer
from benchmarks.gpu.agents import Arrivals, Step, taken
from benchmarks.gpu.faults import Struck, all_told
from benchmarks.gpu.starts import start_of

ROOT = Path(__file__).resolve().parents[2]
STEP = Step(
    begun_s=10.0,
    ended_s=14.0,
    first_s=1.0,
    gap_s=0.5,
    tokens=7,
    asked=7,
    finish="length",
    trouble="",
    streamed=True,
)
STRUCK = Struck(name="kill-replica", begun_s=12.0, over_s=20.0)


def answer(*events: str) -> Answer:
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return Answer(status=200, body=bytearray(body), arrivals_s=[1.0], whole=True)


def said(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({"id": "a", "model": "m", "choices": [choice]})


def test_an_answer_that_ends_as_it_should_is_a_step_without_trouble() -> None:
    usage = json.dumps({"id": "a", "model": "m", "choices": [], "usage": {"completion_tokens": 2}})
    step = taken(answer(said("x"), said("y", "length"), usage, "[DONE]"), Arrivals(), 3.0, 2)
    assert (step.trouble, step.tokens, step.inexact) == ("", 2, False)
    assert replace(step, tokens=3).inexact


@pytest.mark.parametrize(
    ("events", "trouble"),
    [
        ((said("x"), said("", "abort"), "[DONE]"), "finish reason abort"),
        ((said("x"), '{"error": {"code": "lost"}}', "[DONE]"), "lost"),
        ((said("x", "stop"),), "not exactly one [DONE] at the end"),
    ],
)
def test_an_answer_that_was_cut_is_trouble(events: tuple[str, ...], trouble: str) -> None:
    assert taken(answer(*events), Arrivals(), 3.0, 2).trouble == trouble


def test_a_sign_of_life_is_no_event() -> None:
    arrivals, reply = Arrivals(), answer()
    for piece, events in (
        (b": waiting\n\n", 0),
        (b"data: {}\n\n", 1),
        (b": waiting\n\n", 1),
        (b"data: {}\n\n", 2),
    ):
        reply.body += piece
        arrivals(reply)
        assert len(arrivals.at_s) == events


def test_a_step_belongs_to_the_blow_in_whose_time_it_ended() -> None:
    before = replace(STEP, begun_s=5.0, ended_s=11.0, trouble="earlier")
    failed = replace(STEP, begun_s=19.0, ended_s=25.0, gap_s=5.0, trouble="lost")
    after = replace(STEP, begun_s=20.0, ended_s=32.0, trouble="later")
    following = Struck(name="restart", begun_s=30.0, over_s=40.0)
    first, second = all_told([STRUCK, following], [before, STEP, failed, after])
    assert (first["steps"], first["failed"], first["failures"]) == (2, 1, ["lost"])
    assert (second["steps"], second["failures"]) == (1, ["later"])
    assert first["longest_pause_s"] == 5.0
    assert first["first_s"]["longest"] == 1.0
    assert first["steps_per_s"] == round(1 / 8, 2)


def test_a_start_is_read_from_the_log_of_a_real_one() -> None:
    log = (ROOT / "tests/engines/captured/vllm_0.26_tp1.log").read_text().splitlines()
    found = start_of(log, datetime(2026, 11, 22, 12, 2, 0))
    assert found["phases_s"] == {
        "server imported": 40,
        "engine core imported": 40,
        "weights loaded": 47,
        "compiled": 79,
        "memory known": 82,
        "graphs captured": 88,
        "engine ready": 183,
        "pictures warmed up": 190,
    }
    assert found["said_s"] == {"torch.compile": 31.0, "graph capture": 6.0, "init engine": 135.77}
    assert found["memory"]["kv_cache_tokens"] == 2_764_587


@pytest.mark.process
@pytest.mark.slow
def test_a_replica_and_the_control_plane_are_killed_and_no_step_fails(tmp_path: Path) -> None:
    argv = (
        *(sys.executable, "-m", "benchmarks.gpu.faults", "--model", "m", "--out", str(tmp_path)),
        *("--settings", "benchmarks/gpu/faults_cpu.toml"),
        *("--blows", "kill-replica,adopt", "--sessions", "2", "--system-tokens", "100", "--task-steps", "2"),
        *("--output-tokens", "16", "--settle-s", "1", "--calm-s", "3", "--after-s", "0"),
    )
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "faults.json").read_text())
    assert [(blow["blow"], blow["problem"]) for blow in found["blows"]] == [
        ("kill-replica", ""),
        ("adopt", ""),
    ]
    assert (found["failed"], found["had_to_be_killed"]) == (0, [])
    assert len(found["starts"]) == 3
