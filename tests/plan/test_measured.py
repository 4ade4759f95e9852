"""Predictions against what vLLM said and did on H200s: benchmarks/gpu/results.

The bounds are the project's own: weights within 1 %, every term of 1 GiB or more within 10 %, KV tokens
within 3 %; steps per second and, short of saturation, time to the first token within 15 %.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import TERMS, Ledger, Predicted, term_bytes
from autoglm_serve.core.workload import Workload
from autoglm_serve.engines import vllm_versions
from autoglm_serve.plan.calibration import SHIPPED
from autoglm_serve.plan.choose import decide
from autoglm_serve.plan.request import Pins, Request
from autoglm_serve.probe import hardware_table
from tests.plan.worlds import autoglm, chosen

RESULTS = Path(__file__).parents[2] / "benchmarks/gpu/results/h200x4_vllm-0.26.json"
RUNS: list[dict[str, Any]] = json.loads(RESULTS.read_text())["runs"]
NAMES = [run["run"]["name"] for run in RUNS]
SATURATED = 64
"""With so many sessions a replica the median first token tells the phase of the rounds, not the speed."""
SMALLEST_PASS = 4096
"""Below this a prompt takes several passes and shares each with decoding, which the model leaves out."""


def again(run: dict[str, Any], workload: Workload) -> tuple[Ledger, Predicted]:
    limits = run["run"]
    pins = Pins(
        tensor_parallel=limits["tp"],
        pipeline_parallel=limits["pp"],
        replicas=1,
        quantization=limits["quantization"],
        max_model_len=limits["max_model_len"],
        max_num_seqs=limits["max_num_seqs"],
        max_num_batched_tokens=limits["max_num_batched_tokens"],
        gpu_memory_utilization=limits["gpu_memory_utilization"],
    )
    decision = decide(
        autoglm(),
        hardware_table.hardware(f"h200:{limits['tp'] * limits['pp']}"),
        Request(workload=workload, pins=pins),
        vllm_versions.traits("0.26.0"),
        SHIPPED["h200"],
    )
    plan = chosen(decision)
    assert plan.ledger is not None
    assert plan.predicted is not None
    return plan.ledger, plan.predicted


def loads() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(run, load) for run in RUNS for load in run["loads"]]


def predicted(run: dict[str, Any], load: dict[str, Any]) -> Predicted:
    workload = Workload(
        sessions=load["sessions"], shared_tokens=load["shared_tokens"], fresh_tokens=load["fresh_tokens"]
    )
    return again(run, workload)[1]


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
def test_the_ledger_is_the_engine_s(run: dict[str, Any]) -> None:
    ledger, _ = again(run, Workload(sessions=16))
    said = run["measured"]
    assert ledger.weights_bytes == pytest.approx(said["weights_bytes"], rel=0.01)
    assert ledger.kv_cache_tokens == pytest.approx(said["kv_cache_tokens"], rel=0.03)
    for term in TERMS:
        if said[f"{term}_bytes"] >= GIB:
            assert term_bytes(ledger, term) == pytest.approx(said[f"{term}_bytes"], rel=0.10), term


def label(value: dict[str, Any]) -> str:
    return str(value["run"]["name"] if "run" in value else value["sessions"])


@pytest.mark.parametrize(("run", "load"), [pair for pair in loads() if "steps_per_s" in pair[1]], ids=label)
def test_steps_per_second(run: dict[str, Any], load: dict[str, Any]) -> None:
    assert predicted(run, load).steps_per_s == pytest.approx(load["steps_per_s"], rel=0.15)


@pytest.mark.parametrize(
    ("run", "load"),
    [
        (run, load)
        for run, load in loads()
        if "ttft_s" in load
        and load["sessions"] < SATURATED
        and run["run"]["max_num_batched_tokens"] >= SMALLEST_PASS
    ],
    ids=label,
)
def test_time_to_the_first_token(run: dict[str, Any], load: dict[str, Any]) -> None:
    assert predicted(run, load).ttft_s == pytest.approx(load["ttft_s"], rel=0.15)


@pytest.mark.parametrize(("run", "load"), [pair for pair in loads() if pair[1]["sessions"] == 1], ids=label)
def test_time_per_token_of_one_session(run: dict[str, Any], load: dict[str, Any]) -> None:
    assert predicted(run, load).tpot_s == pytest.approx(load["tpot_s"], rel=0.15)


def test_the_ranking_for_each_gpu_is_right() -> None:
    """Steps per second and GPU at 32 sessions on two GPUs: replicas, then TP2, then PP2; fp8 before bf16."""

    def per_gpu(name: str, sessions: int) -> tuple[float, float]:
        run = next(run for run in RUNS if run["run"]["name"] == name)
        load = next(load for load in run["loads"] if load["sessions"] == sessions)
        gpus = run["run"]["tp"] * run["run"]["pp"]
        return predicted(run, load).steps_per_s / gpus, load["steps_per_s"] / gpus

    speeds = [
        per_gpu("tp1-fp8-s64-t8192", 16),
        per_gpu("tp1-s1024-t8192", 16),
        per_gpu("tp2-s64-t8192", 32),
        per_gpu("pp2-s64-t8192", 32),
    ]
    for kind in (0, 1):
        ranked = [speed[kind] for speed in speeds]
        assert ranked == sorted(ranked, reverse=True)
