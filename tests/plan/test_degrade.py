"""What is tried after a start has failed."""

from dataclasses import replace

from autoglm_serve.core.plan import Placement, Plan
from autoglm_serve.core.replica import ExitCause
from autoglm_serve.plan.degrade import degraded

PLAN = Plan(
    engine="vllm",
    placements=(Placement(), Placement()),
    max_num_seqs=64,
    max_model_len=25_480,
    gpu_memory_utilization=0.95,
    reasons=("a",),
)


def test_out_of_memory_takes_fewer_sequences_and_a_smaller_share() -> None:
    less = degraded(PLAN, ExitCause.OUT_OF_MEMORY)
    assert less is not None
    assert (less.max_num_seqs, less.gpu_memory_utilization) == (32, 0.9)
    assert "max_num_seqs 64 → 32" in less.reasons[0]
    assert less.reasons[1:] == PLAN.reasons


def test_then_a_shorter_context_and_then_nothing() -> None:
    few = replace(PLAN, max_num_seqs=4)
    shorter = degraded(few, ExitCause.OUT_OF_MEMORY)
    assert shorter is not None
    assert shorter.max_model_len == 12_740
    assert degraded(replace(few, max_model_len=8_192), ExitCause.OUT_OF_MEMORY) is None


def test_lost_collectives_go_through_host_memory_once() -> None:
    split = replace(PLAN, tensor_parallel=2)
    less = degraded(split, ExitCause.COLLECTIVES)
    assert less is not None
    assert not less.peer_access
    assert degraded(less, ExitCause.COLLECTIVES) is None


def test_what_less_cannot_help_is_not_degraded() -> None:
    for cause in (ExitCause.MODEL_NOT_FOUND, ExitCause.DRIVER, ExitCause.BAD_FLAG):
        assert degraded(PLAN, cause) is None


def test_what_answers_depend_on_stays() -> None:
    less = degraded(replace(PLAN, max_pixels=5_000_000), ExitCause.OUT_OF_MEMORY)
    assert less is not None
    assert (less.quantization, less.max_pixels, less.dtype) == (None, 5_000_000, "auto")
