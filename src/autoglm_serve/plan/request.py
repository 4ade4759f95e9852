"""What a person wants of a plan: a goal, a workload, and what is pinned."""

from dataclasses import dataclass, field
from enum import StrEnum

from autoglm_serve.core.workload import Workload


class Goal(StrEnum):
    THROUGHPUT = "throughput"
    LATENCY = "latency"
    BALANCED = "balanced"
    TARGETS = "targets"  # the cheapest plan that meets --target-ttft and --target-tpot


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What stays as the person wrote it; None leaves it to the planner."""

    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    replicas: int | None = None
    gpus: tuple[int, ...] | None = None
    dtype: str | None = None
    quantization: str | None = None
    """none, auto, or a method such as fp8. Left out, the weights run as they are stored."""
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    max_pixels: int | None = None
    engine_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Everything about a plan that a person decides."""

    goal: Goal = Goal.BALANCED
    workload: Workload = field(default_factory=Workload)
    target_ttft_s: float | None = None
    target_tpot_s: float | None = None
    pins: Pins = field(default_factory=Pins)
