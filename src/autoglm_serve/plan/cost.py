"""How fast a plan would be: seconds of vision encoding, prefill and decode, and what they come to under load.

A replica under closed-loop load works in rounds: it takes every waiting prompt first (vision tower and
prefill, one after the other at full rate), then decodes all of them together. So a round of n sessions takes
n times the cost of one prompt plus one decode of the whole answer, and each round finishes n steps. Peaks
come from the GPU's datasheet, efficiencies from `Constants`.
"""

from dataclasses import dataclass
from math import ceil

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.facts import ModelFacts, Part
from autoglm_serve.core.hardware import GpuSpec, Link
from autoglm_serve.core.ledger import Ledger, Predicted
from autoglm_serve.core.workload import Workload
from autoglm_serve.plan.memory import QUANTIZED_BYTES, Limits, frames
from autoglm_serve.plan.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """An all-reduce: a fixed latency, and bytes per second on the bus."""

    latency_s: float
    bus_bytes_s: float

    def seconds(self, size_bytes: float, ways: int) -> float:
        """Source: NCCL's bus bandwidth, 2(n-1)/n of the buffer on the wire for each GPU."""
        return self.latency_s + 2 * (ways - 1) / ways * size_bytes / self.bus_bytes_s if ways > 1 else 0.0


def collective(spec: GpuSpec, link: Link, ways: int) -> Collective:
    """What a group's all-reduce runs at.

    Fitted to published all-reduce tables: H200 reaches 330 to 356 GB/s of 450, A100 199 to 221 of 300; over
    PCIe 4 two L40S reach 19 GB/s and four only 3.7; without peer access 8 GB/s is assumed.
    """
    match link:
        case Link.NVLINK:
            return Collective(latency_s=5e-6, bus_bytes_s=0.73 * spec.nvlink_bytes_s or 40e9)
        case Link.P2P:
            share = 0.6 if ways <= 2 else 0.12 if spec.pcie_bytes_s < 60e9 else 0.47
            return Collective(latency_s=6e-6 if ways <= 2 else 14e-6, bus_bytes_s=share * spec.pcie_bytes_s)
        case Link.HOST:
            share = 0.25 if ways <= 2 else 0.12
            return Collective(
                latency_s=15e-6 * (1 if ways <= 2 else 2), bus_bytes_s=share * spec.pcie_bytes_s
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Effective rates of one GPU for one plan."""

    linear_flops: float
    """Text linears: fp8 units where the weights are fp8 and the chip has them."""
    attention_flops: float
    tower_linear_flops: float
    tower_attention_flops: float
    memory_bytes_s: float


def rates(spec: GpuSpec, quantization: str | None, constants: Constants) -> Rates:
    sixteen = spec.flops_16bit * constants.prefill_efficiency
    tower = spec.flops_16bit * constants.encoder_efficiency
    eight = spec.flops_8bit_float * constants.fp8_efficiency if spec.flops_8bit_float else 0.0
    if quantization != "fp8":
        eight = 0.0
    return Rates(
        linear_flops=max(sixteen, eight),
        attention_flops=sixteen,
        tower_linear_flops=max(tower, eight),
        tower_attention_flops=tower,
        memory_bytes_s=spec.bandwidth_bytes_s * constants.bandwidth_efficiency,
    )


# --- one request -----------------------------------------------------------------------------------------


def image_tokens(facts: ModelFacts, workload: Workload, max_pixels: int | None) -> int:
    """Tokens of one of the workload's images."""
    vision = facts.vision
    if vision is None:
        return 0
    tokens = vision.geometry.tokens(workload.image_width_px, workload.image_height_px)
    if max_pixels is None:
        return tokens
    cell = vision.geometry.patch_px * vision.geometry.merge
    return max(1, min(tokens, max_pixels // frames(facts) // cell**2))


def encoder_flops(facts: ModelFacts, tokens: int) -> tuple[float, float]:
    """(linears, attention) of one image: the blocks on every patch, the merger on every token."""
    vision = facts.vision
    if vision is None or not tokens:
        return 0.0, 0.0
    patches = tokens * vision.geometry.merge**2
    mlp = (3 if vision.gated else 2) * vision.hidden * vision.intermediate
    blocks = vision.depth * (4 * vision.hidden**2 + mlp)
    merger = max(0, facts.elements(Part.VISION) - blocks)
    attention = 4 * patches**2 * vision.hidden * vision.full_attention_layers
    return float(2 * blocks * patches + 2 * merger * tokens), float(attention)


def active_linears(facts: ModelFacts) -> float:
    """Text weights that one token is multiplied with: all of them, or its experts' share."""
    text = facts.text
    total = facts.elements(Part.LAYERS, linear_only=True)
    if not text.experts or not text.expert_intermediate:
        return float(total)
    experts = 3 * text.hidden * text.expert_intermediate * text.experts * text.layers
    routed = min(total, experts)
    return total - routed + routed * text.experts_per_token / text.experts


def encoder_s(facts: ModelFacts, shape: Shape, tokens: int, rate: Rates, link: Collective) -> float:
    """One image. Split over GPUs it also pays two all-reduces a block; whole images go to one GPU each."""
    linears, attention = encoder_flops(facts, tokens)
    alone = linears / rate.tower_linear_flops + attention / rate.tower_attention_flops
    vision, ways = facts.vision, shape.tensor_parallel
    if vision is None or ways == 1 or shape.encoder_data_parallel:
        return alone
    state = tokens * vision.geometry.merge**2 * vision.hidden * 2
    return alone / ways + 2 * vision.depth * link.seconds(state, ways)


def prefill_s(facts: ModelFacts, shape: Shape, new: int, cached: int, rate: Rates, link: Collective) -> float:
    """`new` tokens after `cached` ones. Pipeline stages work one after the other on a single prompt."""
    text, ways = facts.text, shape.tensor_parallel
    linears = 2 * active_linears(facts) * new / rate.linear_flops
    span = text.heads * text.head_dim * text.layers
    attention = 4 * span * (new * cached + new * new / 2) / rate.attention_flops
    wire = (2 * text.layers + 1) * link.seconds(new * text.hidden * 2, ways)
    return (linears + attention) / ways + wire


def decode_s(
    facts: ModelFacts,
    spec: GpuSpec,
    shape: Shape,
    limits: Limits,
    batch: float,
    context: int,
    rate: Rates,
    link: Collective,
    constants: Constants,
) -> float:
    """One output token for each of `batch` sequences: weights and their KV cache read once."""
    text, ways = facts.text, shape.tensor_parallel
    weight = _bytes_per_weight(facts, limits.quantization)
    touched = active_linears(facts)
    if text.experts:  # a larger batch wakes more experts
        share = min(1.0, batch * text.experts_per_token / text.experts)
        total = facts.elements(Part.LAYERS, linear_only=True)
        touched = max(touched, total * share)
    head = text.vocab * text.hidden
    heads = max(1, text.kv_heads // ways)
    cache = batch * context * text.layers * heads * text.head_dim * 2 * 2
    read = (touched * weight + head * 2) / ways + cache
    compute = 2 * (active_linears(facts) + head) * batch / ways / rate.linear_flops
    wire = (2 * text.layers + 1) * link.seconds(batch * text.hidden * 2, ways)
    return max(read / rate.memory_bytes_s, compute) + text.layers * constants.layer_overhead_s + wire


def _bytes_per_weight(facts: ModelFacts, quantization: str | None) -> float:
    if quantization:
        return QUANTIZED_BYTES.get(quantization, 1.0)
    linear = [g for g in facts.groups if g.part is Part.LAYERS and g.linear]
    elements = sum(g.elements for g in linear)
    if not elements:
        return 2.0
    packed = facts.quantization in ("awq", "gptq")  # eight weights in an int32
    return min(2.0, sum(g.bytes for g in linear) / elements / (8 if packed else 1))


# --- a deployment under load -----------------------------------------------------------------------------


def predict(
    facts: ModelFacts,
    spec: GpuSpec,
    link: Link,
    shape: Shape,
    limits: Limits,
    replicas: int,
    ledger: Ledger,
    workload: Workload,
    constants: Constants,
) -> Predicted:
    """Steps per second over all replicas, and TTFT and TPOT, alone and at the workload's sessions."""
    rate = rates(spec, limits.quantization, constants)
    wire = collective(spec, link, shape.tensor_parallel)
    tokens = image_tokens(facts, workload, limits.max_pixels)
    pictures = workload.images if facts.vision else 0
    new = workload.fresh_tokens + pictures * tokens
    context = workload.shared_tokens + new + workload.output_tokens // 2
    seeing = pictures * encoder_s(facts, shape, tokens, rate, wire) * constants.prompt_factor
    reading = prefill_s(facts, shape, new, workload.shared_tokens, rate, wire) * constants.prompt_factor
    host = pictures * constants.image_host_s
    handover = pictures * constants.parallel_image_s if shape.gpus > 1 else 0.0
    sessions = ceil(workload.sessions / replicas)
    live = workload.prompt_tokens(tokens) + workload.output_tokens
    at_once = max(1, min(sessions, limits.max_num_seqs, ledger.kv_cache_tokens // live))

    def token_s(batch: float) -> float:
        alone = decode_s(facts, spec, shape, limits, batch, context, rate, wire, constants)
        return alone * constants.decode_factor

    # Pipeline stages did not overlap on prompts when measured (vLLM 0.26): one prompt after the other.
    each = max(seeing + reading + handover, host / HOST_WORKERS)
    together = max(1, min(at_once, limits.max_num_batched_tokens // max(1, new)))
    round_s = host + at_once * each + workload.output_tokens * token_s(at_once)
    waiting = (sessions / at_once - 1) * round_s
    single_ttft = host + handover + seeing + reading + token_s(1)
    # Half of the others come first, and prompts that share a pass end together.
    ttft = single_ttft + (at_once - 1 + together - 1) / 2 * each + waiting
    step = round_s + waiting
    steps_per_s = replicas * at_once / round_s
    if sessions * replicas > workload.sessions:  # the last replica has fewer
        steps_per_s *= workload.sessions / (sessions * replicas)
    return Predicted(
        steps_per_s=steps_per_s,
        ttft_s=ttft,
        tpot_s=max(token_s(1), (step - ttft) / workload.output_tokens),
        single_ttft_s=single_ttft,
        single_tpot_s=token_s(1),
        sessions=workload.sessions,
        badge=constants.badge,
    )


HOST_WORKERS = 2.0
"""Images that an API server prepares at the same time, on average: decoding overlaps, hashing does not."""
