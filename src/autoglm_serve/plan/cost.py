"""How fast a plan would be: what the parts of a request cost on a GPU, and what they come to under load.

Peaks come from the GPU's datasheet, efficiencies from `Constants`; `closed_loop` puts the agents' load on the
parts, because what a session sees depends on who else is in the pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil, exp, log

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.facts import Attention, ModelFacts, ModelPart
from autoglm_serve.core.hardware import GpuSpec, Host, Link
from autoglm_serve.core.ledger import Ledger, Predicted
from autoglm_serve.core.workload import Workload
from autoglm_serve.plan.closed_loop import Load, Replica, watch
from autoglm_serve.plan.kv_cache import layout
from autoglm_serve.plan.memory import QUANTIZED_BYTES, SCALES, EngineLimits, frames, longest_image_tokens
from autoglm_serve.plan.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """An all-reduce: a fixed latency, and bytes per second on the bus."""

    latency_s: float
    bus_bytes_s: float

    def seconds(self, size_bytes: float, ways: int) -> float:
        """Source: NCCL's bus bandwidth, 2(n-1)/n of the buffer on the wire for each GPU."""
        return self.latency_s + size_bytes * self.byte_s(ways) if ways > 1 else 0.0

    def byte_s(self, ways: int) -> float:
        return 2 * (ways - 1) / ways / self.bus_bytes_s


class Luck(Enum):
    """Which end of what is known of a link."""

    BAD = -1
    USUAL = 0
    GOOD = 1


def collective(spec: GpuSpec, link: Link, ways: int) -> Collective:
    """What a group's all-reduce runs at inside a CUDA graph, as answers' passes have it.

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


PROMPT_SHARE: Mapping[Link, tuple[float, float, float]] = {
    Link.NVLINK: (0.9, 1.0, 1.0),
    Link.P2P: (0.18, 0.3, 1.0),
    Link.HOST: (0.6, 1.0, 1.5),
}
"""Of that pace, what all-reduces of prompts reach, which run outside the graphs: (worst, usual, best) host.

Over PCIe it hangs on the host: 7 GB/s were seen between two RTX PRO 6000 in the prefill of Qwen3-32B, where
tables have 39; without peer access 5 to 12 GB/s.
"""


def prompt_collective(spec: GpuSpec, link: Link, ways: int, luck: Luck) -> Collective:
    plain = collective(spec, link, ways)
    share = PROMPT_SHARE[link][list(Luck).index(luck)]
    return Collective(latency_s=plain.latency_s, bus_bytes_s=plain.bus_bytes_s * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Effective rates of one GPU for one plan."""

    linear_flops: float
    """Text linears: fp8 units where the weights are fp8 and the chip has them."""
    attention_flops: float
    tower_linear_flops: float
    tower_attention_flops: float
    memory_bytes_s: float


def rates(
    spec: GpuSpec, quantization: str | None, constants: Constants, *, stored_fp8: bool = False
) -> Rates:
    """fp8 counts twice where the weights are fp8, by the checkpoint or the engine, and the chip has units for
    it; packed integers are unpacked to 16 bits first."""
    peak = spec.flops_16bit * spec.sustained
    sixteen, tower = peak * constants.prefill_efficiency, peak * constants.encoder_efficiency
    eight = (spec.flops_8bit_float or 0.0) * spec.sustained * constants.fp8_efficiency
    text_eight = eight if quantization == "fp8" or stored_fp8 else 0.0
    hbm = constants.bandwidth_efficiency if spec.hbm else constants.gddr_efficiency
    return Rates(
        linear_flops=max(sixteen, text_eight),
        attention_flops=sixteen,
        tower_linear_flops=max(tower, eight if quantization == "fp8" else 0.0),
        tower_attention_flops=tower,
        memory_bytes_s=spec.bandwidth_bytes_s * hbm,
    )


# --- one request -----------------------------------------------------------------------------------------


def image_tokens(facts: ModelFacts, workload: Workload, max_pixels: int | None) -> int:
    """Tokens of one of the workload's images."""
    vision = facts.vision
    if vision is None:
        return 0
    tokens = workload.image_tokens(vision.geometry)
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
    merger = max(0, facts.elements(ModelPart.VISION) - blocks)
    seen = min(patches, vision.tile_patches) if vision.tile_patches else patches
    attention = 4 * patches * seen * vision.hidden * vision.full_attention_layers
    return float(2 * blocks * patches + 2 * merger * tokens), float(attention)


def active_linears(facts: ModelFacts) -> float:
    """Text weights that one token is multiplied with: all of them, or its experts' share."""
    total = facts.elements(ModelPart.LAYERS, linear_only=True)
    routed = routed_linears(facts)
    return total - routed + routed * _share_of_experts(facts)


def routed_linears(facts: ModelFacts) -> float:
    """Weights of all experts."""
    return float(sum(g.elements for g in facts.groups if g.routed and g.linear))


def _share_of_experts(facts: ModelFacts) -> float:
    text = facts.text
    used = text.experts_per_token or text.experts
    return used / text.experts if text.experts else 1.0


def encoder_s(facts: ModelFacts, shape: Shape, tokens: int, rate: Rates, link: Collective) -> float:
    """One image. Split over GPUs it also pays two all-reduces a block; whole images go to one GPU each."""
    linears, attention = encoder_flops(facts, tokens)
    alone = linears / rate.tower_linear_flops + attention / rate.tower_attention_flops
    vision, ways = facts.vision, shape.tensor_parallel
    if vision is None or ways == 1 or shape.encoder_data_parallel:
        return alone
    state = tokens * vision.geometry.merge**2 * vision.hidden * 2
    return alone / ways + 2 * vision.depth * link.seconds(state, ways)


def weights_read(facts: ModelFacts, batch: int) -> float:
    """Text weights that a pass over `batch` tokens reads: a larger one wakes more experts.

    Each token takes its experts as if by lot, so of those that one token leaves out a share stays asleep for
    each token more.
    """
    total, routed = facts.elements(ModelPart.LAYERS, linear_only=True), routed_linears(facts)
    asleep = (1 - _share_of_experts(facts)) ** max(1, batch)
    return total - routed * asleep


def _reading_efficiency(facts: ModelFacts, limits: EngineLimits, constants: Constants) -> float:
    """Of the decoder's linears against 16-bit ones: four bits are unpacked on the way."""
    stored = facts.stored if limits.quantization is None else None
    return constants.packed_efficiency if stored is not None and stored.bits <= 4 else 1.0


def _bytes_per_weight(facts: ModelFacts, quantization: str | None) -> float:
    """Of the decoder's linears, their scales included."""
    if quantization:
        return QUANTIZED_BYTES.get(quantization, 1.0)
    linear = [g for g in facts.groups if g.part is ModelPart.LAYERS and g.linear]
    elements = sum(g.elements for g in linear)
    if not elements:
        return 2.0
    scales = sum(g.bytes for g in facts.groups if g.part is ModelPart.LAYERS and g.dtype == SCALES)
    return min(2.0, (sum(g.bytes for g in linear) + scales) / elements)


# --- a replica, and a deployment under load ---------------------------------------------------------------


def replica_of(
    facts: ModelFacts,
    spec: GpuSpec,
    link: Link,
    shape: Shape,
    limits: EngineLimits,
    ledger: Ledger,
    load: Load,
    constants: Constants,
    luck: Luck = Luck.USUAL,
) -> Replica:
    """The seconds of one replica's parts under this load.

    Pipeline stages did not overlap on prompts with images when measured (vLLM 0.26): each pass takes all of
    them in turn. Prompts of text alone follow each other through the stages.
    """
    text, ways = facts.text, shape.tensor_parallel
    stored_fp8 = limits.quantization is None and facts.stored is not None and facts.stored.floating
    rate = rates(spec, limits.quantization, constants, stored_fp8=stored_fp8)
    wire, prompt_wire = collective(spec, link, ways), prompt_collective(spec, link, ways, luck)
    reduces = 2 * text.layers + 1 if ways > 1 else 0
    prompt, answer = constants.prompt_factor, constants.decode_factor
    at_once = max(1, min(limits.max_num_seqs, requests_at_once(facts, shape, limits, ledger, load)))
    batch = min(load.sessions, at_once)
    head_bytes = text.vocab * text.hidden * 2
    weights = weights_read(facts, batch) * _bytes_per_weight(facts, limits.quantization)
    weights = weights / _reading_efficiency(facts, limits, constants) + head_bytes
    token_s = 2 * active_linears(facts) / rate.linear_flops / ways
    token_s += reduces * prompt_wire.byte_s(ways) * text.hidden * 2
    image_s = encoder_s(facts, shape, load.image_tokens, rate, prompt_wire)
    image_s += constants.parallel_image_s if ways > 1 else constants.image_copy_s
    image_s += constants.pipeline_image_s * (shape.pipeline_parallel - 1)
    return Replica(
        beside_s=load.images * constants.image_beside_s,
        turn_s=load.images * host_turn_s(shape, limits, constants) if load.images else 0.0,
        image_s=image_s * prompt,
        token_s=token_s * prompt,
        pair_s=4 * attention_span(facts, load) / rate.attention_flops / ways * prompt,
        weights_s=weights / ways / rate.memory_bytes_s * answer,
        cached_s=cached_bytes(facts, shape, limits, load) / rate.memory_bytes_s * answer,
        pass_s=(text.layers * layer_overhead_s(facts, limits, constants) + reduces * wire.latency_s) * answer,
        prompt_pass_s=constants.prompt_pass_s * prompt,
        batched_tokens=limits.max_num_batched_tokens,
        image_room_tokens=max(limits.max_num_batched_tokens, longest_image_tokens(facts, limits.max_pixels)),
        at_once=at_once,
        stages=1 if load.images else shape.pipeline_parallel,
    )


def requests_at_once(
    facts: ModelFacts, shape: Shape, limits: EngineLimits, ledger: Ledger, load: Load
) -> int:
    """Requests of the load that the KV cache holds at the same time."""
    cache = layout(
        facts.text,
        ways=shape.tensor_parallel,
        stages=shape.pipeline_parallel,
        element_bytes=limits.kv_element_bytes,
        batched_tokens=limits.max_num_batched_tokens,
    )
    return cache.requests(ledger.kv_cache_bytes, load.live_tokens)


def layer_overhead_s(facts: ModelFacts, limits: EngineLimits, constants: Constants) -> float:
    """Of one layer in one decode step. Models that see have more kernels a layer than plain decoders
    (positions in three dimensions, norms on both sides); without CUDA graphs each launch takes its time."""
    seconds = constants.layer_overhead_s * (1.0 if facts.vision else constants.plain_overhead_share)
    return seconds * (constants.eager_factor if limits.eager else 1.0)


def attention_span(facts: ModelFacts, load: Load) -> float:
    """Numbers that a pair of tokens is multiplied over, in all layers: a window sees only part of the pairs,
    and a state none."""
    text, prompt = facts.text, max(1, load.shared_tokens + load.new_tokens)
    layers = 0.0
    for each in text.kept:
        if each.kind is Attention.SLIDING:
            layers += each.layers * min(1.0, 2 * each.window_tokens / prompt)
        elif each.kind is not Attention.STATE:
            layers += each.layers
    return text.heads * text.head_dim * layers


def cached_bytes(facts: ModelFacts, shape: Shape, limits: EngineLimits, load: Load) -> float:
    """Read for one token of an answer's context in a decode step."""
    total, context = 0.0, max(1, load.live_tokens)
    for each in facts.text.kept:
        share = min(1.0, each.window_tokens / context) if each.kind is Attention.SLIDING else 1.0
        kept = each.token_elements(shape.tensor_parallel) * limits.kv_element_bytes * share
        kept += 2 * each.state_bytes / shape.tensor_parallel / context  # read and written once a step
        total += each.layers * kept
    return total


def host_turn_s(shape: Shape, limits: EngineLimits, constants: Constants) -> float:
    """Of one image in the API server's only worker: no replica takes more of them than one in this time."""
    gained_s = constants.image_torch_s * (1 - exp(-THREADS_EXPONENT * log(limits.image_threads)))
    return constants.image_turn_s - gained_s + (constants.parallel_turn_s if shape.gpus > 1 else 0.0)


THREADS_EXPONENT = 0.68
"""The image processor took 87, 53, 34 and 24 ms with 1, 2, 4 and 8 threads."""
MOST_IMAGE_THREADS = 4


def image_threads(host: Host | None, replicas: int, shape: Shape) -> int:
    """Of each replica's server, on one picture: what a person has set, or what the processes that never rest
    leave of its cores.

    Those are the server, the engine's core and, where a replica spans GPUs, a worker for each. With four
    threads instead of one, one request's first token came 80 to 110 ms sooner on H100s, and TP2 with 32
    sessions did 6.6 steps/s instead of 4.4 (benchmarks/gpu).
    """
    if host is not None and host.threads is not None:
        return host.threads
    if host is None or host.cores is None:
        return MOST_IMAGE_THREADS
    busy = 2 + (shape.gpus if shape.gpus > 1 else 0)
    return max(1, min(MOST_IMAGE_THREADS, host.cores // replicas - busy))


def predict(
    facts: ModelFacts,
    spec: GpuSpec,
    link: Link,
    shape: Shape,
    limits: EngineLimits,
    replicas: int,
    ledger: Ledger,
    workload: Workload,
    constants: Constants,
    luck: Luck = Luck.USUAL,
) -> Predicted:
    """Steps per second over all replicas, and median TTFT and TPOT, alone and at the workload's sessions."""

    def loaded(sessions: int) -> Load:
        return Load(
            sessions=sessions,
            shared_tokens=workload.shared_tokens,
            text_tokens=workload.fresh_tokens,
            images=workload.images if facts.vision else 0,
            image_tokens=image_tokens(facts, workload, limits.max_pixels) if workload.images else 0,
            output_tokens=workload.output_tokens,
            think_s=workload.think_s,
        )

    def parts(load: Load) -> Replica:
        return replica_of(facts, spec, link, shape, limits, ledger, load, constants, luck)

    each = ceil(workload.sessions / replicas)
    alone = loaded(1)
    one = parts(alone)
    at_once = one.at_once
    many = loaded(min(each, MOST_SIMULATED * at_once))
    single = watch(one, alone)
    busy = watch(parts(many), many) if each > 1 else single
    steps_per_s = replicas * busy.steps_per_s
    if each * replicas > workload.sessions:  # the last replica has fewer
        steps_per_s *= workload.sessions / (each * replicas)
    return Predicted(
        steps_per_s=steps_per_s,
        ttft_s=busy.ttft_s + (each - many.sessions) / busy.steps_per_s,
        tpot_s=busy.tpot_s,
        single_ttft_s=single.ttft_s,
        single_tpot_s=single.tpot_s,
        sessions=workload.sessions,
        badge=constants.badge,
        single_host_s=one.beside_s + one.turn_s if alone.images else None,
    )


MOST_SIMULATED = 2
"""Sessions for each that is worked on at once: those beyond only wait for longer."""
