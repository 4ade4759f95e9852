"""How an engine version sizes its memory and how fast its parts run: what the planner must know of it.

An engine adapter owns the traits of its versions (facts read from the engine's source); calibration owns the
constants (fitted to measurements). The planner only reads both.
"""

from dataclasses import dataclass

from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import Badge


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraits:
    """What differs between engines and their versions, as data."""

    engine: str
    version: str
    profiles_encoder: bool
    """Its start-up profile runs the vision tower, so that memory is inside its budget."""
    budgets_graphs: bool
    """It subtracts CUDA graphs from the KV cache; otherwise they come on top of its share."""
    sampler_bytes_per_logit: float
    """Peak bytes of the sampler's dummy run for one row of one vocabulary entry."""
    fp8_tower: bool = True
    """Quantising while loading covers the vision tower's linears too."""
    max_pipeline: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What is fitted to measurements. Defaults hold for any CUDA GPU until one has been measured."""

    badge: Badge = Badge.ESTIMATED
    origin: str = "formulas and datasheets"
    # memory
    layer_activation_factor: float = 1.0
    """On the formula of one forward pass's activations."""
    encoder_activation_factor: float = 1.0
    non_torch_bytes: int = int(0.25 * GIB)
    """One GPU a replica."""
    non_torch_parallel_bytes: int = int(0.6 * GIB)
    """Several GPUs a replica: NCCL's buffers too."""
    graphs_base_bytes: int = int(0.1 * GIB)
    graph_bytes: int = 20 * 2**20
    """Of one captured batch size, one GPU a replica."""
    weights_slack_bytes: int = int(0.04 * GIB)
    """Buffers that are made while the weights load."""
    # speed
    prefill_efficiency: float = 0.6
    """Of the 16-bit peak, text and vision linears."""
    encoder_efficiency: float = 0.5
    fp8_efficiency: float = 0.5
    """Of the fp8 peak."""
    bandwidth_efficiency: float = 0.8
    layer_overhead_s: float = 25e-6
    """Kernel launches of one layer in one decode step."""
    image_host_s: float = 0.2
    """CPU time from an image's arrival to the start of its prefill."""
    prompt_factor: float = 1.0
    """On the time of encoding and prefill, from a measurement on this machine."""
    decode_factor: float = 1.0
    """On the time of a decode step, likewise."""
    parallel_image_s: float = 0.08
    """More of it per image where a replica spans GPUs: pixels are handed to each worker."""
