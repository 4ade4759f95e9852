"""How fast a plan would be: what the parts of a request cost on a GPU, and what they come to under load.

Peaks come from the GPU's datasheet, efficiencies from `Constants`; `closed_loop` puts the agents' load on the
parts, because what a session sees depends on who else is in the pass.
"""

from dataclasses import dataclass
from math import ceil

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.facts import ModelFacts, Part
from autoglm_serve.core.hardware import GpuSpec, Link
from autoglm_serve.core.ledger import Ledger, Predicted
from autoglm_serve.core.workload import Workload
from autoglm_serve.plan.closed_loop import Load, Replica, watch
from autoglm_serve.plan.memory import QUANTIZED_BYTES, Limits, frames, longest_image_tokens
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


def weights_read(facts: ModelFacts, batch: int) -> float:
    """Text weights that a pass over `batch` tokens reads: a larger one wakes more experts."""
    text = facts.text
    touched = active_linears(facts)
    if not text.experts:
        return touched
    share = min(1.0, batch * text.experts_per_token / text.experts)
    return max(touched, facts.elements(Part.LAYERS, linear_only=True) * share)


def _bytes_per_weight(facts: ModelFacts, quantization: str | None) -> float:
    if quantization:
        return QUANTIZED_BYTES.get(quantization, 1.0)
    linear = [g for g in facts.groups if g.part is Part.LAYERS and g.linear]
    elements = sum(g.elements for g in linear)
    if not elements:
        return 2.0
    packed = facts.quantization in ("awq", "gptq")  # eight weights in an int32
    return min(2.0, sum(g.bytes for g in linear) / elements / (8 if packed else 1))


# --- a replica, and a deployment under load ---------------------------------------------------------------


def replica_of(
    facts: ModelFacts,
    spec: GpuSpec,
    link: Link,
    shape: Shape,
    limits: Limits,
    ledger: Ledger,
    load: Load,
    constants: Constants,
) -> Replica:
    """The seconds of one replica's parts under this load.

    Pipeline stages did not overlap on prompts when measured (vLLM 0.26): each pass takes all of them in turn.
    """
    text, ways = facts.text, shape.tensor_parallel
    rate = rates(spec, limits.quantization, constants)
    wire = collective(spec, link, ways)
    reduces = 2 * text.layers + 1 if ways > 1 else 0
    prompt, answer = constants.prompt_factor, constants.decode_factor
    at_once = max(1, min(limits.max_num_seqs, ledger.kv_cache_tokens // load.live_tokens))
    batch = min(load.sessions, at_once)
    head_bytes = text.vocab * text.hidden * 2
    weights = weights_read(facts, batch) * _bytes_per_weight(facts, limits.quantization) + head_bytes
    token_s = 2 * active_linears(facts) / rate.linear_flops / ways
    token_s += reduces * wire.byte_s(ways) * text.hidden * 2
    span = text.heads * text.head_dim * text.layers
    cached_bytes = text.layers * max(1, text.kv_heads // ways) * text.head_dim * 2 * 2
    image_s = encoder_s(facts, shape, load.image_tokens, rate, wire) + constants.image_copy_s
    image_s += constants.parallel_image_s if ways > 1 else 0.0
    image_s += constants.pipeline_image_s * (shape.pipeline_parallel - 1)
    return Replica(
        beside_s=load.images * constants.image_beside_s,
        turn_s=load.images * host_turn_s(shape, constants),
        image_s=image_s * prompt,
        token_s=token_s * prompt,
        pair_s=4 * span / rate.attention_flops / ways * prompt,
        weights_s=weights / ways / rate.memory_bytes_s * answer,
        cached_s=cached_bytes / rate.memory_bytes_s * answer,
        pass_s=(text.layers * constants.layer_overhead_s + reduces * wire.latency_s) * answer,
        prompt_pass_s=constants.prompt_pass_s * prompt,
        batched_tokens=limits.max_num_batched_tokens,
        image_room_tokens=max(limits.max_num_batched_tokens, longest_image_tokens(facts, limits.max_pixels)),
        at_once=at_once,
    )


def host_turn_s(shape: Shape, constants: Constants) -> float:
    """Of one image in the API server's only worker: no replica takes more of them than one in this time."""
    return constants.image_turn_s + (constants.parallel_turn_s if shape.gpus > 1 else 0.0)


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
    """Steps per second over all replicas, and median TTFT and TPOT, alone and at the workload's sessions."""

    def loaded(sessions: int) -> Load:
        return Load(
            sessions=sessions,
            shared_tokens=workload.shared_tokens,
            text_tokens=workload.fresh_tokens,
            images=workload.images if facts.vision else 0,
            image_tokens=image_tokens(facts, workload, limits.max_pixels),
            output_tokens=workload.output_tokens,
        )

    def parts(load: Load) -> Replica:
        return replica_of(facts, spec, link, shape, limits, ledger, load, constants)

    each = ceil(workload.sessions / replicas)
    alone = loaded(1)
    at_once = parts(alone).at_once
    many = loaded(min(each, MOST_SIMULATED * at_once))
    single = watch(parts(alone), alone)
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
    )


MOST_SIMULATED = 2
"""Sessions for each that is worked on at once: those beyond only wait for longer."""
