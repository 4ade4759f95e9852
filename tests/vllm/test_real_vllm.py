"""Real vLLM on the CPU with the demo model: the adapter's commands start it, and every way of spreading it
gives the same greedy answers.

Opt-in: `sh run_tests.sh --vllm` makes the environment and names its Python in AUTOGLM_TEST_VLLM_PYTHON.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import ExitCause, ExitFacts
from autoglm_serve.demo import demo_model
from autoglm_serve.demo.evaluate import held_out_cases, held_out_talk, png, screen_content
from autoglm_serve.demo.judge import is_right
from autoglm_serve.demo.screens import Screen
from autoglm_serve.demo.tasks import Case
from autoglm_serve.engines.vllm import Vllm
from autoglm_serve.launch.ports import PortLease
from autoglm_serve.probe.model_facts import from_folder
from tests.fakes.addresses import at

PYTHON = os.environ.get("AUTOGLM_TEST_VLLM_PYTHON", "")
SITE = os.environ.get("AUTOGLM_TEST_VLLM_SITE", "")
START_S = 300
SMALL_CACHE = ("--kv-cache-memory-bytes", str(64 * 2**20))
TAPS, SEED = 6, 31
TALK = dict(held_out_talk(SEED, 60))
"""What is asked without a picture, and the exact reply."""

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="AUTOGLM_TEST_VLLM_PYTHON names no Python with vLLM"),
]

PLAN = Plan(
    engine="vllm",
    placements=(Placement(),),
    max_model_len=2048,
    max_num_seqs=4,
    max_num_batched_tokens=2048,
    images_per_prompt=2,
    content_format="string",
)


@dataclass
class Server:
    """A vLLM that the adapter's command started."""

    port: int
    log: tuple[str, ...]
    measured: MeasuredLedger

    def answer(self, content: Any) -> str:
        body = {
            "model": "phone",
            "temperature": 0,
            "max_tokens": 80,
            "messages": [{"role": "user", "content": content}],
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = json.load(answer)
        text = said["choices"][0]["message"]["content"]
        assert isinstance(text, str)
        return text


def questions() -> list[Any]:
    taps = [screen_content(png(screen), case.instruction) for screen, case in cases()]
    return [*TALK, *taps]


def cases() -> list[tuple[Screen, Case]]:
    """Screens that nobody trained on: no way of spreading the model may move a single tap."""
    return list(held_out_cases("tap", SEED, TAPS))


def start(plan: Plan, folder: Path, port: int) -> tuple[subprocess.Popen[bytes], Path]:
    files = ModelFiles(reference="demo", format=ModelFormat.HUGGING_FACE, path=demo_model().hf_dir)
    command = Vllm().command(Member(names=("phone",), files=files, plan=plan), Placement(), at(port))
    cores = min(2, os.cpu_count() or 1)
    ranks = plan.tensor_parallel * plan.pipeline_parallel
    threads = "|".join(str(rank % cores) for rank in range(ranks))
    here = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": SITE, "VLLM_CPU_OMP_THREADS_BIND": threads}
    log = folder / f"vllm-{port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            (PYTHON, *command.argv[1:]),
            env=os.environ | dict(command.env) | here,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, log


@contextlib.contextmanager
def serving(plan: Plan, folder: Path) -> Iterator[Server]:
    with PortLease() as lease:
        process, log = start(plan, folder, lease.port)
        try:
            wait_until_ready(process, log, lease.port)
            lines = tuple(log.read_text(errors="replace").splitlines())
            measured = MeasuredLedger()
            for line in lines:
                measured = measured.merged(Vllm().measured(line) or MeasuredLedger())
            yield Server(port=lease.port, log=lines, measured=measured)
        finally:
            end(process)


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{Vllm.health_path}", timeout=2).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    raise AssertionError(f"not ready after {START_S} s\n" + log.read_text(errors="replace")[-3000:])


def end(process: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)


def on_cpu(**changes: Any) -> Plan:
    """Graphs and compilation are switched off, which only the pipeline cannot do without here."""
    eager = () if changes.get("pipeline_parallel", 1) > 1 else ("--enforce-eager",)
    return replace(PLAN, engine_args=(*SMALL_CACHE, *eager), **changes)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one engine on one processor answers."""
    with serving(on_cpu(), tmp_path_factory.mktemp("alone")) as server:
        answers = [server.answer(question) for question in questions()]
        stages = [step.stage for line in server.log if (step := Vllm().progress(line))]
    assert stages[-1] == "ready"
    assert server.measured.kv_cache_tokens
    right = sum(
        is_right(case, answer) for (_, case), answer in zip(cases(), answers[len(TALK) :], strict=True)
    )
    assert right >= TAPS - 1, answers
    assert answers[: len(TALK)] == list(TALK.values())
    return answers


@pytest.mark.parametrize("spread", [{"tensor_parallel": 2}, {"pipeline_parallel": 2}], ids=["TP2", "PP2"])
def test_spreading_it_changes_no_answer(spread: dict[str, int], alone: list[str], tmp_path: Path) -> None:
    with serving(on_cpu(**spread), tmp_path) as server:
        assert [server.answer(question) for question in questions()] == alone


def test_two_replicas_answer_alike(alone: list[str], tmp_path: Path) -> None:
    with serving(on_cpu(), tmp_path) as first, serving(on_cpu(), tmp_path) as second:
        for server in (first, second):
            assert [server.answer(question) for question in questions()] == alone


def test_two_ranks_hold_twice_the_tokens(tmp_path: Path) -> None:
    """Two key/value heads, one a rank: the planner's rule, in vLLM's own words."""
    facts = from_folder(demo_model().hf_dir)
    assert facts.text.kv_heads == 2
    with serving(on_cpu(tensor_parallel=2), tmp_path) as server:
        keys_and_values = 2 * facts.text.kv_heads * facts.text.head_dim * 2  # of a token in a layer, 16-bit
        bytes_a_token = facts.text.layers * keys_and_values // 2
        assert server.measured.kv_cache_tokens == pytest.approx(64 * 2**20 / bytes_a_token, rel=0.01)


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--no-such-flag",), ExitCause.BAD_FLAG),
        (("--tensor-parallel-size", "3"), ExitCause.BAD_FLAG),
        (("--max-model-len", "100000000"), ExitCause.BAD_FLAG),
    ],
)
def test_a_start_that_fails_is_understood(flags: tuple[str, ...], cause: ExitCause, tmp_path: Path) -> None:
    plan = replace(on_cpu(), engine_args=(*SMALL_CACHE, "--enforce-eager", *flags))
    with PortLease() as lease:
        process, log = start(plan, tmp_path, lease.port)
        try:
            code = process.wait(START_S)
        finally:
            end(process)
    tail = tuple(log.read_text(errors="replace").splitlines()[-200:])
    found = Vllm().diagnose(ExitFacts(code=code, signal=None, was_ready=False, log_tail=tail))
    assert found.cause is cause, "\n".join(tail[-30:])
