"""Bytes on one GPU of a replica, term by term: weights, activations, graphs, and what the KV cache gets.

The terms and the order of subtraction follow vLLM (`vllm/v1/worker/gpu_worker.py`): it takes a share of the
total, loads the weights, runs the largest forward pass once, and gives the rest to the KV cache. Where a
version does not count its CUDA graphs or its vision tower, they come on top and this module leaves room.
"""

from dataclasses import dataclass
from math import ceil, floor, log2

from autoglm_serve.core.engine_traits import Constants, EngineTraits
from autoglm_serve.core.facts import ModelFacts, ModelPart, Shard, TensorGroup
from autoglm_serve.core.hardware import GIB, Gpu, Link
from autoglm_serve.core.ledger import Ledger
from autoglm_serve.plan.kv_cache import KvLayout, layout
from autoglm_serve.plan.shapes import Shape

MARGIN_BYTES = 300 * 2**20
"""Left alone on each GPU: allocator fragmentation and the driver (vLLM itself keeps 150 MiB)."""
MARGIN_UNKNOWN_ARCHITECTURE = 0.05
"""Of the weights, where the architecture has no rules here."""
HIGHEST_UTILIZATION = 0.95
HIDDEN_STATES = 2.65
"""Of all tokens that are alive at once at the widest point; fitted, between two and three."""
SCALES = "SCALES"
"""The dtype of what belongs to quantised weights, in `TensorGroup`."""
FLOATS = frozenset({"F32", "F16", "BF16", "F64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The knobs that cost memory."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    quantization: str | None = None
    max_pixels: int | None = None
    gpu_memory_utilization: float | None = None
    """None takes the largest share that is safe."""
    eager: bool = False
    """Without CUDA graphs and without compiling."""
    kv_element_bytes: float = 2.0
    """Of one number of a key or value in the cache."""
    lora_elements: int = 0
    """Weights of adapters that are held on the GPUs of a replica."""
    image_threads: int = 1
    """Of the server, on one picture."""
    profiled_tokens: int = 0
    """Of the longest item that the engine makes room for at its start, where it is longer than an image: a
    video, unless it is told that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a shape and its limits come to on one GPU."""

    ledger: Ledger
    gpu_memory_utilization: float
    shortfall_bytes: int
    """More memory needed before the KV cache holds one request of full length; 0 or less where it does."""
    cold_shortfall_bytes: int
    """The same for a start that compiles, which counts the compiler's scratch as if serving took it."""
    layout: KvLayout

    @property
    def feasible(self) -> bool:
        return self.shortfall_bytes <= 0

    @property
    def survives_a_cold_start(self) -> bool:
        return self.cold_shortfall_bytes <= 0

    def requests(self, tokens: int) -> int:
        """Of so many tokens each that one replica holds at the same time."""
        return self.layout.requests(self.ledger.kv_cache_bytes, tokens)


def fit(
    facts: ModelFacts,
    gpu: Gpu,
    shape: Shape,
    limits: EngineLimits,
    traits: EngineTraits,
    constants: Constants,
    link: Link | None = None,
) -> Fit:
    """The ledger of the fullest stage on `gpu`. Never refuses: a shortfall is part of the answer.

    `link` joins the GPUs of a replica; None takes the usual one of such GPUs.
    """
    quantized = limits.quantization is not None or facts.quantization is not None
    traits = traits.of(facts.architecture, mixed=facts.text.mixed, quantized=quantized)
    weights = weights_bytes(facts, shape, limits, traits, constants)
    encoder = int(encoder_bytes(facts, shape, limits, constants) * traits.encoder_factor)
    graphs = graphs_bytes(facts, shape, limits, constants)
    state = state_bytes(facts, shape, limits, traits)
    peak = activation_base_bytes(facts, constants) + max(
        layer_activation_bytes(facts, shape, limits, constants),
        sampler_bytes(facts, shape, limits, traits),
        encoder if traits.profiles_encoder else 0,
    )
    outside = (0 if traits.profiles_encoder else encoder) + (0 if traits.counts_state else state)
    context, non_torch = libraries_bytes(shape, traits, constants, link or gpu.spec.link)
    non_torch += state if traits.counts_state else 0
    on_top = context + outside + (0 if traits.budgets_graphs else graphs) + MARGIN_BYTES
    share = limits.gpu_memory_utilization or safe_utilization(gpu, on_top)
    requested = ceil(gpu.total_bytes * share)
    inside = weights + peak + non_torch + (graphs if traits.budgets_graphs else 0)
    cache = kv_layout(facts, shape, limits, traits)
    available = requested - inside
    needed = cache.bytes_of(limits.max_model_len)
    cold = cold_bytes(facts, shape, limits, constants)
    ledger = Ledger(
        total_bytes=gpu.total_bytes,
        weights_bytes=weights,
        peak_activation_bytes=peak,
        non_torch_bytes=non_torch,
        cuda_graphs_bytes=graphs,
        kv_cache_bytes=max(0, available),
        kv_cache_tokens=cache.tokens(available, limits.max_model_len),
        context_bytes=context,
        other_bytes=gpu.total_bytes - gpu.free_bytes,
        unprofiled_bytes=outside,
        cold_bytes=cold,
        badge=constants.badge,
    )
    beyond_free = requested + context - gpu.free_bytes
    return Fit(
        ledger=ledger,
        gpu_memory_utilization=share,
        shortfall_bytes=max(needed - available, beyond_free),
        cold_shortfall_bytes=max(needed + cold - available, beyond_free),
        layout=cache,
    )


def safe_utilization(gpu: Gpu, on_top_bytes: int) -> float:
    """The largest share, in hundredths, that leaves `on_top_bytes` of what is free now."""
    share = (gpu.free_bytes - on_top_bytes) / gpu.total_bytes
    return max(0.01, min(HIGHEST_UTILIZATION, floor(share * 100) / 100))


# --- terms -----------------------------------------------------------------------------------------------


def weights_bytes(
    facts: ModelFacts, shape: Shape, limits: EngineLimits, traits: EngineTraits, constants: Constants
) -> int:
    """Weights of the fullest stage on one GPU, and what the engine builds beside them."""
    ways, stages = shape.tensor_parallel, shape.pipeline_parallel
    weights = max(
        stage_weights_bytes(facts, shape, stage, limits.quantization, traits) for stage in (0, stages - 1)
    )
    slack = constants.weights_slack_bytes
    weights += facts.text.rotary_table_bytes + (slack if facts.vision else slack // 4)
    weights += facts.text.latent_copy_bytes // (ways * stages) + 2 * limits.lora_elements // (ways * stages)
    doublings = log2(ways)
    weights += int(doublings * constants.weights_slack_doubling_bytes)
    if limits.quantization:
        weights += constants.quantized_slack_bytes + int(doublings * constants.quantized_slack_doubling_bytes)
    if not facts.known:
        weights += int(weights * MARGIN_UNKNOWN_ARCHITECTURE)
    return weights


def libraries_bytes(shape: Shape, traits: EngineTraits, constants: Constants, link: Link) -> tuple[int, int]:
    """(what is there before the engine looks at what is free, what libraries take after that)."""
    if shape.gpus == 1:
        return constants.context_bytes, constants.non_torch_bytes
    context = constants.context_parallel_bytes
    context += int((log2(shape.gpus) - 1) * constants.collectives_doubling_bytes)
    if link is not Link.NVLINK:
        context = constants.context_bytes + constants.collectives_pcie_bytes
    if not traits.counts_collectives:
        return context, constants.non_torch_parallel_bytes
    return constants.context_bytes, constants.non_torch_parallel_bytes + context - constants.context_bytes


def state_bytes(facts: ModelFacts, shape: Shape, limits: EngineLimits, traits: EngineTraits) -> int:
    """What the engine keeps for each sequence it may have under way, used or not."""
    del shape  # each GPU of a replica keeps it whole
    return int(limits.max_num_seqs * facts.text.vocab * traits.sampler_state_bytes_per_logit)


def cold_bytes(facts: ModelFacts, shape: Shape, limits: EngineLimits, constants: Constants) -> int:
    """What a start that compiles counts as activation beyond one that finds its graphs compiled.

    Published differences: 0.96 GiB (RTX 4090, 8 B, 2,048 tokens a pass), 0.9 (A100, 4 B), 0.5 (2 x RTX 4090,
    32 B in 4 bits, 1,536), 2.5 (RTX 8000, 27 B): about two more of a layer's activations, and half a GiB.
    """
    if limits.eager:
        return 0
    plain = layer_activation_bytes(facts, shape, limits, constants)
    return constants.cold_base_bytes + int(constants.cold_activations * plain)


def activation_base_bytes(facts: ModelFacts, constants: Constants) -> int:
    """Of any pass, however small: a model that sees puts pictures among the words' vectors."""
    return constants.activation_base_bytes if facts.vision else constants.activation_base_bytes // 4


def stage_weights_bytes(
    facts: ModelFacts, shape: Shape, stage: int, quantization: str | None, traits: EngineTraits
) -> int:
    """Weights of one pipeline stage on one of its GPUs."""
    first, last = stage == 0, stage == shape.pipeline_parallel - 1
    # The towers are loaded by every stage: the engine builds them before it cuts the decoder.
    share = {
        ModelPart.LAYERS: _largest_stage_share(facts.text.layers, shape.pipeline_parallel),
        ModelPart.EMBEDDING: 1.0 if first or (last and facts.text.tied_embeddings) else 0.0,
        ModelPart.HEAD: 1.0 if last else 0.0,
        ModelPart.VISION: 1.0,
        ModelPart.AUDIO: 1.0,
    }
    return int(sum(share[g.part] * _rank_bytes(facts, g, shape, quantization, traits) for g in facts.groups))


def _largest_stage_share(layers: int, stages: int) -> float:
    return ceil(layers / stages) / layers


def _rank_bytes(
    facts: ModelFacts, group: TensorGroup, shape: Shape, quantization: str | None, traits: EngineTraits
) -> float:
    size = stored_bytes(group, quantization, traits)
    ways = shape.tensor_parallel
    if group.part is ModelPart.VISION and shape.encoder_data_parallel:
        return size
    match group.shard:
        case Shard.COPY:
            return size
        case Shard.KV:
            return size * max(1, facts.text.kv_heads // ways) / facts.text.kv_heads
        case Shard.VOCAB:
            rows = max(1, facts.text.vocab)
            return size * ceil(rows / 64 / ways) * 64 / rows
        case Shard.SPLIT:
            return size / ways


def stored_bytes(group: TensorGroup, quantization: str | None, traits: EngineTraits) -> float:
    """Bytes of a group on the GPU: floats run in 16 bits, linears shrink where the engine quantises them."""
    if group.dtype not in FLOATS:
        return group.bytes
    if quantization and group.linear and (group.part is ModelPart.LAYERS or traits.fp8_tower):
        return group.elements * QUANTIZED_BYTES.get(quantization, 1.0)
    return group.elements * 2


QUANTIZED_BYTES = {"fp8": 1.0, "int8_per_channel_weight_only": 1.0, "bitsandbytes": 0.55}
"""Bytes of one weight that an engine quantises while it loads, its scales included."""


def kv_layout(facts: ModelFacts, shape: Shape, limits: EngineLimits, traits: EngineTraits) -> KvLayout:
    """The KV cache of one GPU."""
    return layout(
        facts.text,
        ways=shape.tensor_parallel,
        stages=shape.pipeline_parallel,
        element_bytes=limits.kv_element_bytes,
        batched_tokens=limits.max_num_batched_tokens,
        passes_ahead=traits.passes_ahead,
        state_blocks=traits.state_blocks,
    )


def layer_activation_bytes(
    facts: ModelFacts, shape: Shape, limits: EngineLimits, constants: Constants
) -> int:
    """One forward pass of max_num_batched_tokens: gate, up and their product, and the hidden states.

    With experts each token passes through several: gate and up of each, their product, and what each gives
    back. Source: fused_experts of vLLM, whose first and last buffers share memory.
    """
    text, ways = facts.text, shape.tensor_parallel
    width = 3 * text.intermediate / ways
    if text.experts:
        each = text.expert_intermediate / ways
        width = max(width, text.experts_per_token * (max(2 * each, text.hidden) + each))
    between = 2 * text.hidden if shape.pipeline_parallel > 1 else 0  # handed from stage to stage
    per_token = (width + HIDDEN_STATES * text.hidden + between) * 2
    return int(limits.max_num_batched_tokens * per_token * constants.layer_activation_factor)


def sampler_bytes(facts: ModelFacts, shape: Shape, limits: EngineLimits, traits: EngineTraits) -> int:
    """The sampler's dummy run: one row of logits for each sequence, gathered twice where they are split."""
    rows = min(limits.max_num_seqs, limits.max_num_batched_tokens)
    ways = shape.tensor_parallel
    gathered = 2 + 2 / ways if ways > 1 else 0
    return int(rows * facts.text.vocab * (traits.sampler_bytes_per_logit + gathered))


def longest_image_tokens(facts: ModelFacts, max_pixels: int | None) -> int:
    """Most tokens one image can become; 0 for a model without sight."""
    vision = facts.vision
    if vision is None:
        return 0
    if max_pixels is None or not vision.max_pixels_flag:
        return vision.longest_tokens
    cell = vision.geometry.patch_px * vision.geometry.merge
    return max(1, min(vision.longest_tokens, max_pixels // frames(facts) // cell**2))


def frames(facts: ModelFacts) -> int:
    """Frames that `max_pixels` counts for a still image: GLM-4.1V's processor counts two."""
    return 2 if facts.architecture.startswith("Glm4v") else 1


def encoder_bytes(facts: ModelFacts, shape: Shape, limits: EngineLimits, constants: Constants) -> int:
    """The vision tower at work on as many of the largest images as one pass takes, and their embeddings."""
    vision = facts.vision
    if vision is None:
        return 0
    longest = max(longest_image_tokens(facts, limits.max_pixels), limits.profiled_tokens)
    tokens = longest * max(1, limits.max_num_batched_tokens // longest)
    patches = tokens * vision.geometry.merge**2
    ways = 1 if shape.encoder_data_parallel else shape.tensor_parallel
    pixels = patches * 3 * 2 * vision.geometry.patch_px**2 * 2 * 2
    states = patches * 3 * vision.hidden * 2
    inner = (3 if vision.gated else 2) * vision.intermediate
    widest = max(inner, 6 * vision.hidden) * patches * 2 / ways
    cached = tokens * facts.text.hidden * 2
    return int((pixels + states + widest) * constants.encoder_activation_factor + cached)


def capture_sizes(max_num_seqs: int, max_num_batched_tokens: int) -> tuple[int, ...]:
    """Batch sizes that vLLM captures as CUDA graphs: 1, 2, 4, 8 to 248 by 8, from 256 by 16."""
    largest = min(2 * max_num_seqs, 512, max_num_batched_tokens)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    return tuple(size for size in sizes if size <= largest)


def graphs_bytes(facts: ModelFacts, shape: Shape, limits: EngineLimits, constants: Constants) -> int:
    """Every captured batch size: in pieces, and whole as well up to max_num_seqs. Layer for layer: a graph
    holds kernels, and those of a narrow layer are as many as those of a wide one."""
    if limits.eager:
        return 0
    sizes = capture_sizes(limits.max_num_seqs, limits.max_num_batched_tokens)
    whole = sum(size <= limits.max_num_seqs for size in sizes)
    full, pieces = constants.graph_full_bytes, constants.graph_pieces_bytes
    if shape.tensor_parallel > 1:
        full, pieces = constants.graph_full_parallel_bytes, constants.graph_pieces_parallel_bytes
    layers = ceil(facts.text.layers / shape.pipeline_parallel) / 40
    return int((whole * full + len(sizes) * pieces) * layers)


def gib(size: float) -> str:
    """12.3 GiB."""
    return f"{size / GIB:.1f} GiB" if abs(size) >= 0.95 * GIB else f"{size / GIB:.2f} GiB"
