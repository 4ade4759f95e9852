"""Memory of one GPU, term by term, and how well each figure is known.

The planner predicts a ledger; an engine's start-up lines give the measured one; both are this value, so
they can be shown side by side. Whoever makes one says how it knows.
"""

from dataclasses import dataclass, fields
from enum import StrEnum


class Badge(StrEnum):
    """How a figure is known, weakest first."""

    ESTIMATED = "estimated"  # from formulas and datasheets
    CALIBRATED = "calibrated"  # from formulas fitted to measurements on this kind of GPU
    MEASURED = "measured"  # read from the engine on this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Bytes on the fullest GPU of a replica, and the tokens its KV cache holds.

    The terms are the ones that vLLM reports. `free_bytes` is what is left of the GPU's total beside them;
    where the engine does not budget for its CUDA graphs or its vision tower, they live there.
    """

    total_bytes: int
    weights_bytes: int
    peak_activation_bytes: int
    """Most that one forward pass takes on top of the weights, as the engine profiles it."""
    non_torch_bytes: int
    """Memory of CUDA's and other libraries, as the engine counts it."""
    cuda_graphs_bytes: int
    kv_cache_bytes: int
    kv_cache_tokens: int
    """Tokens that one replica can hold, over all of its GPUs."""
    context_bytes: int = 0
    """CUDA context and NCCL buffers, which exist before the engine counts."""
    other_bytes: int = 0
    """Held by other processes when this was made."""
    unprofiled_bytes: int = 0
    """Of `free_bytes`, what the engine will take at run time without having budgeted for it."""
    cold_bytes: int = 0
    """What a start that compiles counts as if serving took it: its KV cache is smaller by that. Estimated."""
    badge: Badge = Badge.ESTIMATED

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - sum(
            (
                self.weights_bytes,
                self.peak_activation_bytes,
                self.non_torch_bytes,
                self.cuda_graphs_bytes,
                self.kv_cache_bytes,
                self.context_bytes,
                self.other_bytes,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLedger:
    """Main memory of the replicas of an engine that runs on the processor, all of them alike. Estimated."""

    cores: int
    """That they may use, over all of them."""
    total_bytes: int
    free_bytes: int
    """When this was made."""
    replicas: int
    weights_bytes: int
    """The model's and its vision tower's files."""
    kv_cache_bytes: int
    """Of every slot's whole context: taken at the start."""
    work_bytes: int
    """Buffers of one forward pass, kept prompts, and the process itself."""
    kv_cache_tokens: int

    @property
    def replica_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.work_bytes

    @property
    def needed_bytes(self) -> int:
        return self.replicas * self.replica_bytes


TERMS = ("weights", "peak_activation", "non_torch", "cuda_graphs", "kv_cache")
"""The terms that an engine reports, in the order in which they are shown."""


def term_bytes(ledger: Ledger, term: str) -> int:
    value = getattr(ledger, f"{term}_bytes")
    assert isinstance(value, int)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLedger:
    """What an engine has said of its memory so far; None where it has not said it."""

    weights_bytes: int | None = None
    peak_activation_bytes: int | None = None
    non_torch_bytes: int | None = None
    consumed_bytes: int | None = None
    """Weights and non-torch memory together: newer vLLM reports only the sum."""
    cuda_graphs_bytes: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_tokens: int | None = None
    compiled: bool | None = None
    """True where this start compiled: what it says of memory holds the compiler's scratch too."""

    def merged(self, newer: "MeasuredLedger") -> "MeasuredLedger":
        """This, with everything that `newer` knows put over it."""
        chosen = {}
        for item in fields(self):
            fresh = getattr(newer, item.name)
            chosen[item.name] = getattr(self, item.name) if fresh is None else fresh
        return MeasuredLedger(**chosen)

    @property
    def complete(self) -> bool:
        """The engine's summary line has been seen."""
        return self.peak_activation_bytes is not None and self.kv_cache_tokens is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpeed:
    """A lone request, as it was answered on this machine."""

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a plan is expected to do for the workload it was made for, over all replicas together.

    Medians over the steps of a load that has settled; `plan.closed_loop` says how it is simulated.
    """

    steps_per_s: float
    ttft_s: float
    """Median time to the first token at the workload's number of sessions."""
    tpot_s: float
    """Time per output token after the first, likewise."""
    single_ttft_s: float
    """With one session and nobody else."""
    single_tpot_s: float
    sessions: int
    badge: Badge = Badge.ESTIMATED
    steps_range_per_s: tuple[float, float] | None = None
    """What `steps_per_s` may turn out as, where it is not measured: what is known of such GPUs and links."""
    ttft_range_s: tuple[float, float] | None = None
    single_host_s: float | None = None
    """Of `single_ttft_s`, what the host takes to prepare pictures; None where it prepares none."""

    def single_step_s(self, output_tokens: int) -> float:
        """One step of a session that is alone, from request to last token."""
        return self.single_ttft_s + output_tokens * self.single_tpot_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a measurement holds for."""

    gpu: str
    driver: str
    engine: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a plan comes to under the shipped constants: what a start of it is held against."""

    subject: Subject
    gpus_per_replica: int
    ledger: Ledger
    speed: Predicted | None = None
