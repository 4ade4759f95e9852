"""Words about a decision: why the plan is as it is, why the others lost, what one knob would change.

Sentences are made here once and printed by the CLI, the log, the doctor and the console alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from autoglm_serve.core.hardware import GpuSource, Link
from autoglm_serve.core.ledger import Badge, Predicted
from autoglm_serve.plan.cost import Luck, host_turn_s
from autoglm_serve.plan.engine_flags import engine_flags
from autoglm_serve.plan.memory import EngineLimits, gib, longest_image_tokens
from autoglm_serve.plan.request import Goal, Pins, PlanRequest
from autoglm_serve.plan.score import CLOSE, missed, score
from autoglm_serve.plan.search import (
    SMALLER_IMAGES,
    Candidate,
    RejectedShape,
    Search,
    can_quantize,
    kinds_of,
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
    steps = best.fit.requests(search.live_tokens(plan.max_pixels))
    yield f"the KV cache holds {best.fit.ledger.kv_cache_tokens:,} tokens a replica: {steps} steps at once"
    if not pins.gpu_memory_utilization:
        left = "the driver" if best.fit.ledger.unprofiled_bytes == 0 else "what this version does not count"
        yield f"gpu_memory_utilization {plan.gpu_memory_utilization}: the rest is for {left}"
    yield from _about_the_first_start(search, best)
    if search.flags.expert_parallel and search.facts.text.experts:
        yield "experts stay whole, each GPU holding some of them, as asked"


def _about_the_first_start(search: Search, best: Candidate) -> Iterator[str]:
    """How the plan gets through a start that compiles, which an engine counts as if serving took it."""
    plan, fitted = best.plan, best.fit
    if plan.kv_cache_memory_bytes is not None:
        yield (
            f"the engine is handed its KV cache of {gib(plan.kv_cache_memory_bytes)} outright: this machine "
            "has measured what the rest takes, and a start that compiles would find too little left"
        )
    elif search.traits.compiles and fitted.ledger.cold_bytes:
        scratch = f"about {gib(fitted.ledger.cold_bytes)}"
        if fitted.survives_a_cold_start:
            yield (
                f"a first start compiles, and the engine counts the compiler's scratch ({scratch}) as if "
                "serving took it: its KV cache is smaller by that until the next start, and one request "
                "still fits"
            )
        else:
            yield (
                f"a first start may end for want of memory: it compiles, the engine counts the compiler's "
                f"scratch ({scratch}) as if serving took it, and less is left here; it is then started once "
                "more, with the graphs compiled"
            )


def _about_images(search: Search, best: Candidate) -> Iterator[str]:
    plan, pins = best.plan, search.request.pins
    longest = longest_image_tokens(search.facts, plan.max_pixels)
    yield f"images are counted as {search.facts.family}, {longest:,} tokens at most"
    if not pins.max_num_batched_tokens and (plan.max_num_batched_tokens or 0) >= longest:
        yield (
            f"max_num_batched_tokens {plan.max_num_batched_tokens:,} lets the longest image through in one "
            "piece"
        )
    host = search.hardware.host
    if plan.threads and host is not None and host.threads is not None:
        yield f"each server prepares a screenshot with {plan.threads} threads, as OMP_NUM_THREADS says"
    elif plan.threads:
        cores = f", of {host.cores} cores" if host is not None and host.cores else ""
        yield (
            f"each server prepares a screenshot with {plan.threads} threads{cores} (OMP_NUM_THREADS): vLLM "
            "takes one where nobody says, and first tokens wait for it"
        )


def _headline(best: Candidate, candidates: Sequence[Candidate], request: PlanRequest) -> str:
    plan = best.plan
    if plan.replicas > 1 and best.shape.gpus == 1 and len(kinds_of(best.gpus)) > 1:
        return (
            f"the model fits each of the {plan.replicas} GPUs, so each runs a replica of its own, as fast as "
            "it is; limits are those of the smallest"
        )
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
    yield from _idle(search, best, idle)
    longest = longest_image_tokens(search.facts, plan.max_pixels)
    square = isqrt(longest) ** 2
    if plan.max_num_batched_tokens and longest > max(plan.max_num_batched_tokens, square):
        yield (
            f"images of more than {plan.max_num_batched_tokens:,} tokens will be refused (400): raise "
            f"--max-num-batched-tokens to {round_up(longest, 1024):,} or lower --max-pixels"
        )
    yield from short_context(plan.max_model_len, search.live_tokens(plan.max_pixels))
    if search.hardware.source is GpuSource.PROBE and ledger.free_bytes < ledger.unprofiled_bytes:
        yield "the vision tower may run out of memory under load: lower --gpu-memory-utilization"
    if best.fit.requests(search.live_tokens(plan.max_pixels)) < (plan.max_num_seqs or 1):
        yield "the KV cache holds fewer steps than max_num_seqs: requests beyond it wait or start over"
    images = search.request.workload.images if search.facts.vision else 0
    most = 1 / (images * host_turn_s(best.shape, best.limits, search.constants)) if images else float("inf")
    if best.predicted.steps_per_s > HOST_BOUND * most * plan.replicas:
        yield (
            f"the host sets the pace: a replica's server prepares {most:.1f} screenshots a second, and its "
            "GPUs could do more; fewer GPUs a replica help, perhaps vLLM's --api-server-count after --"
        )


def _idle(search: Search, best: Candidate, idle: Sequence[int]) -> Iterator[str]:
    """GPUs that the plan leaves out, and why."""
    used = kinds_of(best.gpus)
    left = [gpu for gpu in search.gpus if gpu.index in idle]
    other = [gpu for gpu in left if not set(kinds_of([gpu])) <= set(used)]
    if other:
        names = ", ".join(f"{gpu.title} (GPU {gpu.index})" for gpu in other)
        yield f"the GPUs differ: {names} left out; --gpus names the ones to use"
    same = [str(gpu.index) for gpu in left if gpu not in other]
    if same:
        yield f"GPU {', '.join(same)} stays unused: too full, or one too many for equal groups"


def unweighed(pins: Pins) -> Iterator[str]:
    """Engine flags that may matter and have no say in the figures."""
    names = engine_flags(pins.engine_args).not_weighed
    if names:
        yield f"not weighed in these figures: {', '.join(names[:8])} (handed to the engine as they are)"


def short_context(context_tokens: int | None, step_tokens: int) -> Iterator[str]:
    """A context that one step of the workload does not fit into."""
    if context_tokens and context_tokens < step_tokens:
        yield (
            f"a phone agent's step has about {step_tokens:,} tokens (screenshot, prompt and answer) and the "
            f"context {context_tokens:,}: it will be refused (400) or its answer cut; raise --max-model-len "
            f"to {round_up(step_tokens, 1024)}, if the model's own context reaches that far"
        )


# --- the others ------------------------------------------------------------------------------------------


def lost(other: Candidate, best: Candidate, request: PlanRequest) -> RejectedShape:
    name = plan_name(other.plan.replicas, other.shape, other.plan.quantization)
    return RejectedShape(name=name, reason=_why_lost(other, best, request), predicted=other.predicted)


def _why_lost(other: Candidate, best: Candidate, request: PlanRequest) -> str:
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


def nothing_fits(search: Search, shortfall_bytes: int | None, unfit: Sequence[RejectedShape]) -> str:
    """The one line that says there is no plan."""
    if shortfall_bytes is None:
        reason = (
            unfit[0].reason if unfit else "no way of spreading it over these GPUs is left by what is pinned"
        )
        return f"{search.facts.reference} cannot run on {search.hardware.summary}: {reason}"
    return (
        f"{search.facts.reference} does not fit {search.hardware.summary}: the best of {len(unfit)} plans "
        f"tried needs {gib(shortfall_bytes)} more on each GPU"
    )


# --- what would change -----------------------------------------------------------------------------------


def sensitivities(search: Search, best: Candidate) -> Iterator[Offer]:
    """What one knob more or less would free, all else equal."""
    now = replace(best.limits, gpu_memory_utilization=best.fit.gpu_memory_utilization)
    here = best.fit.ledger
    for label, limits in _knobs(search, now):
        there = search.fit(best.gpu, best.shape, limits).ledger
        tokens = there.kv_cache_tokens - here.kv_cache_tokens
        freed = there.free_bytes + there.kv_cache_bytes - here.free_bytes - here.kv_cache_bytes
        if abs(freed) >= LEAST_SENSITIVITY_BYTES:
            word = "frees" if freed >= 0 else "takes"
            yield Offer(change=label, effect=f"{word} {gib(abs(freed))} ({tokens:+,} KV tokens)")


def _knobs(search: Search, now: EngineLimits) -> Iterator[tuple[str, EngineLimits]]:
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


def _timed(search: Search, best: Candidate, limits: EngineLimits) -> Predicted:
    return search.predict(best.shape, limits, best.fit, best.gpus, best.link, best.plan.replicas)


# --- how sure it is --------------------------------------------------------------------------------------

SURE = {Badge.ESTIMATED: 0.2, Badge.CALIBRATED: 0.1, Badge.MEASURED: 0.05}
"""How far a figure may be off by what it is known from: published estimates for cards that were not measured
are off by 15 % in the middle, the figures of docs/planner.md by 10."""


def ranged(search: Search, best: Candidate) -> Predicted:
    """The prediction with what it may turn out as."""
    found, off = best.predicted, SURE[best.predicted.badge]
    worst, luckiest = _at(search, best, Luck.BAD), _at(search, best, Luck.GOOD)
    return replace(
        found,
        steps_range_per_s=(worst.steps_per_s * (1 - off), luckiest.steps_per_s * (1 + off)),
        ttft_range_s=(luckiest.ttft_s * (1 - off), worst.ttft_s * (1 + off)),
    )


def _at(search: Search, candidate: Candidate, luck: Luck) -> Predicted:
    if not hangs_on_the_link(candidate):
        return candidate.predicted
    plan = candidate.plan
    return search.predict(
        candidate.shape, candidate.limits, candidate.fit, candidate.gpus, candidate.link, plan.replicas, luck
    )


def hangs_on_the_link(candidate: Candidate) -> bool:
    return candidate.shape.tensor_parallel > 1 and candidate.link is not Link.NVLINK


def ties(search: Search, best: Candidate, losers: Sequence[Candidate]) -> Iterator[str]:
    """A choice that turns over with how fast the GPUs of this host exchange data."""
    for other in losers[:MOST_RIVALS]:
        if other.limits.quantization != best.limits.quantization:
            continue
        if not (hangs_on_the_link(best) or hangs_on_the_link(other)):
            continue
        ours = score(_at(search, best, Luck.BAD), search.request)
        theirs = score(_at(search, other, Luck.GOOD), search.request)
        if theirs > ours + CLOSE:
            mine = plan_name(best.plan.replicas, best.shape, None)
            name = plan_name(other.plan.replicas, other.shape, None)
            yield (
                f"{mine} and {name} are a tie as far as is known: which is better hangs on how fast these "
                "GPUs exchange data, which differs between hosts; measure both (--calibrate with --tp)"
            )
            return


MOST_RIVALS = 4
