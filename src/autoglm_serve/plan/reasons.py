"""Words about a decision: why the plan is as it is, why the others lost, what one knob would change.

Sentences are made here once and printed by the CLI, the log, the doctor and the console alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autoglm_serve.core.hardware import GpuSource, Link
from autoglm_serve.core.ledger import Predicted
from autoglm_serve.plan.cost import host_turn_s, predict
from autoglm_serve.plan.memory import Limits, fit, gib, longest_image_tokens
from autoglm_serve.plan.request import Goal, Request
from autoglm_serve.plan.score import CLOSE, missed
from autoglm_serve.plan.search import (
    SMALLER_IMAGES,
    Candidate,
    Rejected,
    Search,
    can_quantize,
    plan_name,
    round_up,
)

HOST_BOUND = 0.93
"""Of what the host can prepare: nearer than this the GPUs wait for it."""
LEAST_SENSITIVITY_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something a person may do to get more, and what it brings. Nothing here is done silently."""

    change: str
    effect: str


# --- the chosen plan -------------------------------------------------------------------------------------


def reasons(search: Search, best: Candidate, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Why the chosen plan is as it is, most important first."""
    plan, pins = best.plan, search.request.pins
    yield _headline(best, candidates, search.request)
    if plan.tensor_parallel > 1 and not plan.peer_access:
        yield "these GPUs reach each other only through host memory, so peer access is switched off"
    if plan.quantization:
        yield f"the linears are quantised to {plan.quantization}, as asked"
    if search.facts.vision:
        yield from _about_images(search, best)
    steps = best.fit.ledger.kv_cache_tokens // search.live_tokens(plan.max_pixels)
    yield f"the KV cache holds {best.fit.ledger.kv_cache_tokens:,} tokens a replica: {steps} steps at once"
    if not pins.gpu_memory_utilization:
        left = "the driver" if best.fit.ledger.unprofiled_bytes == 0 else "what this version does not count"
        yield f"gpu_memory_utilization {plan.gpu_memory_utilization}: the rest is for {left}"


def _about_images(search: Search, best: Candidate) -> Iterator[str]:
    plan, pins = best.plan, search.request.pins
    longest = f"{longest_image_tokens(search.facts, plan.max_pixels):,} tokens"
    if plan.max_pixels and not pins.max_pixels:
        yield (
            f"max_pixels {plan.max_pixels:,} keeps images within {longest}, as the model's makers deploy it: "
            "memory is too tight for the model's own bound"
        )
    elif not pins.max_num_batched_tokens:
        yield (
            f"max_num_batched_tokens {plan.max_num_batched_tokens:,} lets the longest image ({longest}) "
            "through in one piece"
        )


def _headline(best: Candidate, candidates: Sequence[Candidate], request: Request) -> str:
    plan = best.plan
    if plan.replicas > 1 and best.shape.gpus == 1:
        text = f"the model fits one GPU, so each of the {plan.replicas} runs a whole replica"
        split = [candidate for candidate in candidates if candidate.shape.tensor_parallel == plan.replicas]
        if split:
            rival = max(split, key=lambda c: c.predicted.steps_per_s)
            gain = best.predicted.steps_per_s / rival.predicted.steps_per_s
            text += f": {gain:.1f} times the steps per second of one replica over all ({rival.shape.name})"
        return text
    if best.shape.gpus == 1:
        return "one GPU, one replica"
    if request.pins.tensor_parallel or request.pins.pipeline_parallel:
        return f"{best.shape.name}, as asked"
    if all(candidate.shape.gpus > 1 for candidate in candidates):
        return f"a replica needs {best.shape.gpus} GPUs together ({best.shape.name})"
    output_tokens = request.workload.output_tokens
    rival = max(candidates, key=lambda c: c.predicted.steps_per_s)
    if rival is best:
        return f"{best.shape.name} gives the most steps per second of all plans that fit"
    if request.goal is Goal.TARGETS:
        return f"{best.shape.name} is what the targets ask for"
    if request.goal is not Goal.BALANCED:
        return f"{best.shape.name} is what the goal asks for: a single step takes the least time"
    fewer = 1 - best.predicted.steps_per_s / rival.predicted.steps_per_s
    sooner = 1 - best.predicted.single_step_s(output_tokens) / rival.predicted.single_step_s(output_tokens)
    return (
        f"{best.shape.name} takes {sooner:.0%} off a single step for {fewer:.0%} fewer steps per second than "
        f"{plan_name(rival.plan.replicas, rival.shape, None)} (--goal throughput takes those)"
    )


def warnings(search: Search, best: Candidate) -> Iterator[str]:
    """What a person should know before they start it."""
    plan, ledger = best.plan, best.fit.ledger
    if search.request.goal is Goal.TARGETS and missed(best.predicted, search.request) > 0:
        yield (
            f"no plan meets the targets; this one comes nearest: TTFT {best.predicted.ttft_s:.2f} s, "
            f"TPOT {best.predicted.tpot_s * 1e3:.1f} ms"
        )
    used = {index for group in plan.gpu_groups for index in group}
    idle = sorted({gpu.index for gpu in search.gpus} - used)
    if idle:
        yield f"GPU {', '.join(map(str, idle))} stays unused: too full, or one too many for equal groups"
    longest = longest_image_tokens(search.facts, plan.max_pixels)
    if plan.max_num_batched_tokens and longest > plan.max_num_batched_tokens:
        yield (
            f"images of more than {plan.max_num_batched_tokens:,} tokens will be refused (400): raise "
            f"--max-num-batched-tokens to {round_up(longest, 1024):,} or lower --max-pixels"
        )
    yield from short_context(plan.max_model_len, search.live_tokens(plan.max_pixels))
    if search.hardware.source is GpuSource.PROBE and ledger.free_bytes < ledger.unprofiled_bytes:
        yield "the vision tower may run out of memory under load: lower --gpu-memory-utilization"
    if ledger.kv_cache_tokens < search.live_tokens(plan.max_pixels) * (plan.max_num_seqs or 1):
        yield "the KV cache holds fewer steps than max_num_seqs: requests beyond it wait or start over"
    images = search.request.workload.images if search.facts.vision else 0
    most = 1 / (images * host_turn_s(best.shape, search.constants)) if images else float("inf")
    if best.predicted.steps_per_s > HOST_BOUND * most * plan.replicas:
        yield (
            f"the host sets the pace: a replica's server prepares {most:.1f} screenshots a second, and its "
            "GPUs could do more; fewer GPUs a replica help, perhaps vLLM's --api-server-count after --"
        )


def short_context(context_tokens: int | None, step_tokens: int) -> Iterator[str]:
    """A context that one step of the workload does not fit into."""
    if context_tokens and context_tokens < step_tokens:
        yield (
            f"a phone agent's step has about {step_tokens:,} tokens (screenshot, prompt and answer) and the "
            f"context {context_tokens:,}: it will be refused (400) or its answer cut; raise --max-model-len "
            f"to {round_up(step_tokens, 1024)}, if the model's own context reaches that far"
        )


# --- the others ------------------------------------------------------------------------------------------


def lost(other: Candidate, best: Candidate, request: Request) -> Rejected:
    name = plan_name(other.plan.replicas, other.shape, other.plan.quantization)
    return Rejected(name=name, reason=_why_lost(other, best, request), predicted=other.predicted)


def _why_lost(other: Candidate, best: Candidate, request: Request) -> str:
    slower = 1 - other.predicted.steps_per_s / best.predicted.steps_per_s
    mine = best.predicted.single_step_s(request.workload.output_tokens)
    alone = other.predicted.single_step_s(request.workload.output_tokens) / mine - 1
    load = f"{abs(slower):.0%} {'fewer' if slower >= 0 else 'more'} steps per second"
    single = f"a single step takes {abs(alone):.0%} {'longer' if alone >= 0 else 'less time'}"
    if request.goal is Goal.TARGETS and missed(other.predicted, request) > 0:
        ttft_s, tpot_s = other.predicted.ttft_s, other.predicted.tpot_s
        return f"misses the targets: TTFT {ttft_s:.2f} s, TPOT {tpot_s * 1e3:.1f} ms"
    if other.score >= best.score - CLOSE:
        return f"about as good ({load}; {single}), with more that can fail at once"
    return f"{load}; {single}"


def nothing_fits(search: Search, shortfall_bytes: int, tried: int) -> str:
    """The one line that says there is no plan."""
    return (
        f"{search.facts.reference} does not fit {search.hardware.summary}: the best of {tried} plans tried "
        f"needs {gib(shortfall_bytes)} more on each GPU"
    )


# --- what would change -----------------------------------------------------------------------------------


def sensitivities(search: Search, best: Candidate) -> Iterator[Offer]:
    """What one knob more or less would free, all else equal."""
    now = replace(best.limits, gpu_memory_utilization=best.fit.gpu_memory_utilization)
    here = best.fit.ledger
    for label, limits in _knobs(search, now):
        there = fit(search.facts, best.gpu, best.shape, limits, search.traits, search.constants).ledger
        tokens = there.kv_cache_tokens - here.kv_cache_tokens
        freed = there.free_bytes + there.kv_cache_bytes - here.free_bytes - here.kv_cache_bytes
        if abs(freed) >= LEAST_SENSITIVITY_BYTES:
            word = "frees" if freed >= 0 else "takes"
            yield Offer(change=label, effect=f"{word} {gib(abs(freed))} ({tokens:+,} KV tokens)")


def _knobs(search: Search, now: Limits) -> Iterator[tuple[str, Limits]]:
    for sequences in (1024, 256, 32):
        if sequences != now.max_num_seqs:
            yield f"max_num_seqs {now.max_num_seqs} → {sequences}", replace(now, max_num_seqs=sequences)
    for batched in (16_384, 4_096):
        if batched != now.max_num_batched_tokens:
            label = f"max_num_batched_tokens {now.max_num_batched_tokens} → {batched}"
            yield label, replace(now, max_num_batched_tokens=batched)
    if search.facts.vision and now.max_pixels is None and search.facts.vision.max_pixels_flag:
        pixels, batched = SMALLER_IMAGES
        label = f"max_pixels the model's own → {pixels:,} with max_num_batched_tokens {batched}"
        yield label, replace(now, max_pixels=pixels, max_num_batched_tokens=batched)


def offers(search: Search, best: Candidate, fp8: Candidate | None) -> Iterator[Offer]:
    """What would be faster, at a price that is the person's to pay."""
    if fp8 and best.plan.quantization is None and can_quantize(search.facts, search.gpus):
        gain = fp8.predicted.steps_per_s / best.predicted.steps_per_s - 1
        more = fp8.fit.ledger.kv_cache_tokens - best.fit.ledger.kv_cache_tokens
        gained = f"{gain:+.0%}" if gain > CLOSE else "hardly more"
        yield Offer(
            change="--quantization fp8",
            effect=f"{gained} steps per second and {more:+,} KV tokens a replica; it changes answers "
            "slightly, so compare them on your own screens first",
        )
    vision = search.facts.vision
    if vision and vision.max_pixels_flag and best.plan.max_pixels is None:
        pixels = SMALLER_IMAGES[0] // 2
        faster = _timed(search, best, replace(best.limits, max_pixels=pixels))
        gain = faster.steps_per_s / best.predicted.steps_per_s - 1
        if gain > CLOSE:
            yield Offer(
                change=f"--max-pixels {pixels}",
                effect=f"{gain:+.0%} steps per second; small text on the screen gets harder to read",
            )


def _timed(search: Search, best: Candidate, limits: Limits) -> Predicted:
    links = (search.hardware.weakest_link(group) for group in best.plan.gpu_groups)
    return predict(
        search.facts,
        best.gpu.spec,
        max(links, key=list(Link).index),
        best.shape,
        limits,
        best.plan.replicas,
        best.fit.ledger,
        search.request.workload,
        search.constants,
    )
