"""SGLang's adapter: the same plan in its words."""

import json
from dataclasses import replace

import pytest

from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import Ledger, MeasuredLedger
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts
from autoglm_serve.engines.sglang import Sglang
from tests.fakes.addresses import at

ENGINE = Sglang()
LEDGER = Ledger(
    total_bytes=100 * GIB,
    weights_bytes=20 * GIB,
    peak_activation_bytes=GIB,
    non_torch_bytes=GIB,
    cuda_graphs_bytes=GIB,
    kv_cache_bytes=60 * GIB,
    kv_cache_tokens=1_000_000,
)
PLAN = Plan(
    engine="sglang",
    placements=(Placement(gpus=(0, 1)),),
    tensor_parallel=2,
    max_model_len=25_480,
    max_num_seqs=64,
    max_num_batched_tokens=8192,
    gpu_memory_utilization=0.92,
    max_pixels=5_000_000,
    ledger=LEDGER,
)


def argv(plan: Plan = PLAN) -> tuple[str, ...]:
    files = ModelFiles(reference="zai-org/AutoGLM-Phone-9B", format=ModelFormat.HUGGING_FACE)
    return ENGINE.command(
        Member(names=("phone", "alias"), files=files, plan=plan), Placement(), at(9001)
    ).argv


def value(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_the_plan_in_sglang_s_words() -> None:
    words = argv()
    assert value(words, "--host") == "127.0.0.1"
    assert value(words, "--tp-size") == "2"
    assert value(words, "--context-length") == "25480"
    assert value(words, "--max-running-requests") == "64"
    assert value(words, "--chunked-prefill-size") == "8192"
    assert json.loads(value(words, "--mm-process-config")) == {"image": {"max_pixels": 5_000_000}}


def test_its_share_is_of_weights_and_cache_alone() -> None:
    assert value(argv(), "--mem-fraction-static") == "0.8"
    assert value(argv(replace(PLAN, ledger=None)), "--mem-fraction-static") == "0.92"


def test_without_peer_access_it_is_not_tried() -> None:
    assert "--disable-custom-all-reduce" in argv(replace(PLAN, peer_access=False))


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("[2026-11-22 TP0] Load weight begin. avail mem=139.0 GB", "loading"),
        ("[2026-11-22 TP0] Load weight end. type=Glm4v, avail mem=119.5 GB, mem usage=19.40 GB.", "making"),
        ("[2026-11-22 TP0] Capture cuda graph begin. This can take up to several minutes.", "capturing"),
        ("The server is fired up and ready to roll!", "ready"),
    ],
)
def test_progress(line: str, stage: str) -> None:
    progress = ENGINE.progress(line)
    assert progress is not None
    assert progress.stage.startswith(stage)


def test_memory_from_the_log() -> None:
    ledger = MeasuredLedger()
    for line in (
        "Load weight end. type=Glm4v, dtype=bf16, avail mem=119.5 GB, mem usage=19.40 GB.",
        "max_total_num_tokens=2700000, chunked_prefill_size=8192, max_prefill_tokens=16384",
        "nothing",
    ):
        ledger = ledger.merged(ENGINE.measured(line) or MeasuredLedger())
    assert ledger.weights_bytes == int(19.4 * GIB)
    assert ledger.kv_cache_tokens == 2_700_000


def diagnose(line: str, code: int | None = 1) -> Diagnosis:
    return ENGINE.diagnose(ExitFacts(code=code, signal=None, was_ready=False, log_tail=(line,)))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static", "OUT_OF_MEMORY"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "OUT_OF_MEMORY"),
        ("[Errno 98] address already in use", "PORT_TAKEN"),
        ("python: No module named sglang", "ENGINE_MISSING"),
        ("launch_server.py: error: unrecognized arguments: --foo", "BAD_FLAG"),
        ("NCCL error in: ProcessGroupNCCL.cpp", "COLLECTIVES"),
    ],
)
def test_exits(line: str, cause: str) -> None:
    found = diagnose(line)
    assert found.cause is ExitCause[cause]
    assert found.remedy


def test_silence_and_obedience() -> None:
    assert diagnose("?").cause is ExitCause.UNKNOWN
    assert diagnose("", code=0).cause is ExitCause.ASKED
