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


class Part(StrEnum):
    """Which part of the model a group belongs to; pipeline stages and towers are cut along these."""

    LAYERS = "layers"
    EMBEDDING = "embedding"
    HEAD = "head"
    VISION = "vision"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorGroup:
    """Tensors of one part that are split alike and stored alike."""

    part: Part
    shard: Shard
    dtype: str
    """As safetensors writes it: BF16, F16, F32, F8_E4M3, I32 …"""
    elements: int
    bytes: int
    linear: bool
    """Weights of matrix products, which an engine can quantise while it loads them."""


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
    rotary_table_bytes: int = 0
    """cos/sin table that the engine builds beside the weights, copied to each GPU."""

    @property
    def kv_bytes_per_token_layer(self) -> int:
        """Keys and values of one token in one layer, 16-bit, all heads."""
        return 2 * self.kv_heads * self.head_dim * 2


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

    def elements(self, *parts: Part, linear_only: bool = False) -> int:
        return sum(g.elements for g in self.groups if g.part in parts and (g.linear or not linear_only))
