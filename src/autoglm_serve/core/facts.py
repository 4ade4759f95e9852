"""What a model's config and tensor headers say, as far as the planner needs it.

Made by `probe.model_facts` from config.json with safetensors headers (or from the config alone), and from
GGUF headers; read by `plan`. Tensors are summed into groups that are split across GPUs in the same way.
"""

from dataclasses import dataclass
from enum import StrEnum

from autoglm_serve.core.model import Capability, VisionGeometry


class Shard(StrEnum):
    """What tensor parallelism does with a group of tensors."""

    SPLIT = "split"  # an equal part on each GPU
    KV = "kv"  # whole key/value heads: copied once there are fewer heads than GPUs
    VOCAB = "vocab"  # vocabulary rows, padded to a multiple of 64, then split
    COPY = "copy"  # whole on each GPU: norms, routers, position tables


class ModelPart(StrEnum):
    """Which part of the model a group belongs to; pipeline stages and towers are cut along these."""

    LAYERS = "layers"
    EMBEDDING = "embedding"
    HEAD = "head"
    VISION = "vision"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorGroup:
    """Tensors of one part that are split alike and stored alike."""

    part: ModelPart
    shard: Shard
    dtype: str
    """As safetensors writes it: BF16, F16, F32, F8_E4M3 …; INT4 or INT8 for weights that are packed into
    larger words; SCALES for what belongs to quantised weights."""
    elements: int
    """Weights that they hold: eight in an int32 of four-bit weights, none in scales and zero points."""
    bytes: int
    linear: bool
    """Weights of matrix products, which an engine can quantise while it loads them."""
    routed: bool = False
    """Of experts, of which a token uses a few."""


class Attention(StrEnum):
    """What a layer keeps of the tokens before."""

    FULL = "full"  # keys and values of all of them
    SLIDING = "sliding"  # of those in a window
    LATENT = "latent"  # one compressed vector each, whole on each GPU (MLA)
    STATE = "state"  # a state of one size, however many they are (linear attention, Mamba)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayers:
    """Layers that keep the same of the tokens before."""

    kind: Attention
    layers: int
    heads: int = 0
    """Key/value heads."""
    head_dim: int = 0
    value_dim: int = 0
    window_tokens: int = 0
    state_bytes: int = 0
    """Of one layer and one sequence, on all GPUs of a tensor-parallel group together."""

    def token_elements(self, ways: int = 1) -> int:
        """Numbers kept of one token in one layer, on one of `ways` GPUs; heads fewer than GPUs are copied."""
        match self.kind:
            case Attention.STATE:
                return 0
            case Attention.LATENT:
                return self.head_dim
            case Attention.FULL | Attention.SLIDING:
                return max(1, self.heads // ways) * (self.head_dim + self.value_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationFacts:
    """How a checkpoint's weights are stored."""

    method: str
    """As its config names it: fp8, awq, gptq, compressed-tensors …"""
    bits: int
    group: int = 0
    """Weights that share a scale along the input; 0 where a whole row does."""
    block: tuple[int, int] | None = None
    """(rows, columns) that share a scale, where they are blocks."""
    floating: bool = False
    """Of the 8-bit ones: fp8, which newer chips multiply at twice the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts:
    """The decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int
    tied_embeddings: bool
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    expert_layers: int = 0
    shared_expert_intermediate: int = 0
    rotary_table_bytes: int = 0
    """cos/sin table that the engine builds beside the weights, copied to each GPU."""
    latent_copy_bytes: int = 0
    """Projections of latent attention that the engine keeps a second time, rearranged; split over GPUs."""
    attention: tuple[AttentionLayers, ...] = ()
    """Empty where all layers keep keys and values of all tokens."""
    recurrent_heads: int = 0
    """Heads of the layers that keep a state, which tensor parallel splits as well."""

    @property
    def kept(self) -> tuple[AttentionLayers, ...]:
        """What the layers keep of the tokens before, kind by kind."""
        return self.attention or (
            AttentionLayers(
                kind=Attention.FULL,
                layers=self.layers,
                heads=self.kv_heads,
                head_dim=self.head_dim,
                value_dim=self.head_dim,
            ),
        )

    @property
    def mixed(self) -> bool:
        """It has experts or layers with a state: engines run such models by other rules."""
        return bool(self.experts) or any(each.kind is Attention.STATE for each in self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionFacts:
    """The vision tower and what one image costs."""

    depth: int
    hidden: int
    heads: int
    intermediate: int
    gated: bool
    """The MLP has a gate beside its up projection."""
    geometry: VisionGeometry
    full_attention_layers: int
    """Layers in which each patch of an image sees every other; the rest look through a small window."""
    tile_patches: int = 0
    """Patches that see each other where an image is cut into tiles; 0 where it is not."""
    longest_tokens: int
    """Most tokens that one image of any shape can become (tall images reach more than square ones)."""
    max_pixels_flag: bool = True
    """The processor of this family takes `max_pixels`."""
    encoder_data_parallel: bool = False
    """The engine can give each GPU whole images instead of splitting the tower (mm-encoder-tp-mode data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One checkpoint."""

    reference: str
    architecture: str
    known: bool
    """False for an architecture this project has no rules for: the plan is conservative and says so."""
    text: TextFacts
    groups: tuple[TensorGroup, ...]
    vision: VisionFacts | None = None
    capabilities: frozenset[Capability] = frozenset({Capability.CHAT})
    quantization: str | None = None
    """The checkpoint's own: fp8, awq, gptq, compressed-tensors …"""
    stored: QuantizationFacts | None = None
    """The same with its sizes; None where nothing is quantised."""
    family: str = ""
    """Whose rule for image tokens is used, in words; empty for a model without sight."""
    from_headers: bool = True
    """False where the tensors were derived from the config because no header could be read."""
    content_format: str | None = None
    """string, where the chat template prints a list of parts as Python would."""
    recommended_max_model_len: int | None = None
    """The context that the model's makers deploy it with, where they say so."""
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(group.bytes for group in self.groups)

    @property
    def parameters(self) -> int:
        return sum(group.elements for group in self.groups)

    def elements(self, *parts: ModelPart, linear_only: bool = False) -> int:
        return sum(g.elements for g in self.groups if g.part in parts and (g.linear or not linear_only))
