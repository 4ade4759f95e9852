"""What to run: the engine, its parallelism and limits, and the reasons; and the members of a deployment."""

from dataclasses import dataclass, field

from autoglm_serve.core.ledger import Expectation, HostLedger, Ledger, Predicted
from autoglm_serve.core.model import AudioSpan, Capability, ModelFiles, VisionGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """What one replica runs, wherever that is; an engine adapter turns it into a command line."""

    engine: str
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    content_format: str | None = None
    """How the chat template wants message parts (vLLM: string or openai); None leaves it to the engine."""
    max_model_len: int | None = None
    """Context in tokens, prompt and answer together; None leaves the model's own."""
    max_num_seqs: int | None = None
    """Sequences that one replica decodes at once."""
    threads: int | None = None
    """CPU threads of one replica: llama.cpp's, or those of a server on one picture."""
    image_max_tokens: int | None = None
    """A larger picture is scaled down to this many tokens; None leaves the model's own bound."""
    dtype: str = "auto"
    """bfloat16, float16, or auto: what the checkpoint says."""
    quantization: str | None = None
    """Done by the engine while loading; None runs the weights as they are stored."""
    max_num_batched_tokens: int | None = None
    """Tokens of one forward pass; also the engine's budget for encoding images."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's total memory that the engine may take."""
    kv_cache_memory_bytes: int | None = None
    """KV cache of each GPU, handed to the engine outright; None lets it measure what is left."""
    max_pixels: int | None = None
    """Hugging Face's area bound for images; None leaves the model's own."""
    images_per_prompt: int | None = None
    encoder_data_parallel: bool = False
    """Whole images per GPU instead of a vision tower split over them."""
    peer_access: bool = True
    """The GPUs of a replica reach each other directly; without it the engine must not try."""
    ledger: Ledger | None = None
    """Predicted memory of the fullest GPU."""
    host: HostLedger | None = None
    """Predicted main memory, where the engine runs on the processor."""
    predicted: Predicted | None = None
    engine_args: tuple[str, ...] = ()
    """The person's own engine flags, passed through last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one replica runs."""

    host: str = ""
    """The machine, as its launcher names it; empty for this one."""
    gpus: tuple[int, ...] = ()
    """By index; empty where the engine runs on the CPU."""
    devices: tuple[str, ...] = ()
    """The same GPUs as CUDA_VISIBLE_DEVICES names them, where the driver was asked; else empty."""
    address: str = ""
    """The base URL where it serves already, kept alive by others; empty for one that we start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(ReplicaSpec):
    """How one model is run: the spec that all its replicas share, a placement for each, and the reasons."""

    placements: tuple[Placement, ...]
    reasons: tuple[str, ...] = ()
    """Why this and nothing else, in sentences a person reads."""

    @property
    def replicas(self) -> int:
        return len(self.placements)

    @property
    def gpu_groups(self) -> tuple[tuple[int, ...], ...]:
        """The GPUs of each replica; empty where the engine runs on the CPU."""
        return tuple(placement.gpus for placement in self.placements if placement.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of a deployment: what runs it and the names it answers to."""

    names: tuple[str, ...]
    """The served name first, then its aliases."""
    files: ModelFiles
    plan: Plan
    capabilities: frozenset[Capability] = frozenset({Capability.CHAT})
    vision: VisionGeometry | None = None
    audio: AudioSpan | None = None
    vocabulary: int | None = None
    """How many tokens it knows, where that is known."""
    upstream_model: str | None = None
    """The name that the engine knows the model by, where that is not the served name."""
    upstream_engine: str | None = None
    """What runs there, where it says so: an engine's name."""
    expected: Expectation | None = None
    """What its replicas' reports of their memory are held against; None where they are not kept."""
    may_degrade: bool = False
    """A start that fails for want of memory may be tried once more with less."""
    on_demand: bool = False
    """Started by the first request that needs it, stopped after `idle_stop_s` without one."""
    idle_stop_s: float = 300.0

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Every model that one service runs."""

    members: tuple[Member, ...] = field(default=())
