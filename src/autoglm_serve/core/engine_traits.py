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
    sampler_state_bytes_per_logit: float = 0.0
    """Kept for each sequence and vocabulary entry as long as the engine runs: counts for penalties."""
    counts_state: bool = False
    """That is inside its budget; otherwise it comes on top of its share."""
    counts_collectives: bool = False
    """It looks at what is free before NCCL has taken its buffers, so they are inside its budget."""
    compiles: bool = False
    """Its first start with new limits compiles, and counts that as if serving took it."""
    takes_kv_bytes: bool = False
    """It can be told the size of its KV cache outright."""
    passes_ahead: int = 2
    """Passes that hold what they read of a sliding window at the same time."""
    state_blocks: int = 1
    """Blocks of the KV cache that one sequence's state takes in a recurrent layer."""
    encoder_factor: float = 1.0
    """On the vision tower's memory, where it works in wider numbers."""
    mixed: "EngineTraits | None" = None
    """Its rules for models with experts or recurrent layers, where those run by others."""
    ahead: "EngineTraits | None" = None
    """Its rules for `goes_ahead`."""
    goes_ahead: frozenset[str] = frozenset()
    """Architectures that run by the newer rules before others of their kind do."""
    ahead_quantized: bool = True
    """With quantised weights, too."""
    origin: str = "the newest known"
    """Why the rules of this version are used, in words."""
    rules_of: str = ""
    """The release whose rules these are, where they are not the version's own."""
    threads_by_environment: bool = False
    """Its server prepares a picture with as many threads as OMP_NUM_THREADS says, one where nobody says."""
    fp8_tower: bool = True
    """Quantising while loading covers the vision tower's linears too."""
    max_pipeline: int = 8
    pass_feeds_all: bool = False
    """It refuses a pass that is too small for one token of every sequence."""

    def of(self, architecture: str, *, mixed: bool, quantized: bool) -> "EngineTraits":
        """The rules for a model, `mixed` where it has experts or recurrent layers."""
        early = architecture in self.goes_ahead and (self.ahead_quantized or not quantized)
        if early and self.ahead is not None:
            return self.ahead
        return self.mixed if mixed and self.mixed is not None else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What is fitted to measurements. Defaults hold for any CUDA GPU until one has been measured."""

    badge: Badge = Badge.ESTIMATED
    origin: str = "formulas and datasheets"
    measured_here: bool = False
    """Fitted to what this very machine measured."""
    # memory
    layer_activation_factor: float = 1.0
    """On the formula of one forward pass's activations."""
    encoder_activation_factor: float = 1.0
    activation_base_bytes: int = int(0.075 * GIB)
    """Of any forward pass, however small."""
    context_bytes: int = int(0.5 * GIB)
    """CUDA context of one GPU a replica, made before the engine looks at what is free."""
    context_parallel_bytes: int = int(1.53 * GIB)
    """The same with NCCL's buffers, of several GPUs a replica."""
    collectives_doubling_bytes: int = int(0.45 * GIB)
    """More of NCCL's buffers for NVLink with each doubling of the GPUs beyond two: 2.1 GiB were logged for
    eight (A100-SXM4-40GB, DeepSeek-Coder-V2-Lite, vLLM 0.7)."""
    collectives_pcie_bytes: int = int(0.1 * GIB)
    """NCCL's buffers where they lie in the host's memory or go over PCIe; those for NVLink are larger."""
    non_torch_bytes: int = int(0.15 * GIB)
    """Libraries' memory that the engine counts, one GPU a replica."""
    non_torch_parallel_bytes: int = int(0.07 * GIB)
    graph_full_bytes: int = 16 * 2**20
    """Of one batch size captured whole, in 40 layers of 4,096."""
    graph_pieces_bytes: int = 6 * 2**20
    """Of one batch size captured in pieces around attention."""
    graph_full_parallel_bytes: int = 4 * 2**20
    graph_pieces_parallel_bytes: int = 9 * 2**20
    cold_base_bytes: int = int(0.5 * GIB)
    """Of the compiler's scratch in a start that compiles, however small the pass."""
    cold_activations: float = 2.0
    """More of it, in activations of one layer."""
    weights_slack_bytes: int = int(0.055 * GIB)
    """Buffers that are made while the weights load."""
    weights_slack_doubling_bytes: int = int(0.025 * GIB)
    """More of them for each doubling of tensor parallel."""
    quantized_slack_bytes: int = int(0.02 * GIB)
    """What quantising while loading leaves behind."""
    quantized_slack_doubling_bytes: int = int(0.05 * GIB)
    # speed
    packed_efficiency: float = 0.80
    """Of the rate at which 16-bit weights are read, where four bits are unpacked on the way: Qwen's public
    table of Qwen2.5-7B to 32B (A100 80GB, vLLM 0.6.3, GPTQ-Int4 and AWQ beside BF16)."""
    prefill_efficiency: float = 0.60
    """Of the 16-bit peak, text and vision linears."""
    encoder_efficiency: float = 0.70
    fp8_efficiency: float = 0.46
    """Of the fp8 peak."""
    bandwidth_efficiency: float = 0.78
    """Of stacked memory (HBM)."""
    gddr_efficiency: float = 0.82
    """Of any other."""
    layer_overhead_s: float = 40e-6
    """Kernel launches of one layer in one decode step."""
    plain_overhead_share: float = 0.7
    """Of that, in a decoder of text alone."""
    eager_factor: float = 4.0
    """On it, without CUDA graphs."""
    image_beside_s: float = 0.044
    """The host's part of an image that no other request waits for: fetching and decoding it."""
    image_turn_s: float = 0.148
    """The host's part in the server's one worker, request after request: resizing, hashing, packing."""
    image_torch_s: float = 0.12
    """Of that, what several threads share."""
    parallel_turn_s: float = 0.038
    """More of it where a replica spans GPUs: pixels go through shared memory."""
    image_copy_s: float = 0.0167
    """Of an image in its pass besides arithmetic: its pixels go to the engine's core and the GPU."""
    prompt_pass_s: float = 0.0114
    """Of a pass with prompts in it, which runs outside the CUDA graphs."""
    prompt_factor: float = 1.0
    """On the time of encoding and prefill, from a measurement on this machine."""
    decode_factor: float = 1.0
    """On the time of a decode step, likewise."""
    parallel_image_s: float = 0.0407
    """The same where tensor parallel spans GPUs: each worker takes the pixels from shared memory."""
    pipeline_image_s: float = 0.068
    """Of an image in its pass for each pipeline stage after the first."""
