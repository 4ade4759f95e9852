"""When nothing fits: by how much, and the nearest things that would, each tried by planning again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import GIB, Gpu, Hardware, Host
from autoglm_serve.plan.legality import why_refused
from autoglm_serve.plan.memory import gib
from autoglm_serve.plan.reasons import Offer
from autoglm_serve.plan.request import Pins, PlanRequest
from autoglm_serve.plan.search import (
    SMALLER_IMAGES,
    Candidate,
    Search,
    allowed_quantization,
    can_quantize,
    plan_name,
    tightest,
)

SHORTEST_CONTEXT = 1024
"""A shorter one is no way out for anybody."""
MOST_GPUS = 8
GGUF_BYTES = 0.61
"""Of one weight in the usual four-bit GGUF (Q4_K_M), its scales included."""

MEMORY_SHARE = 0.8
"""Of a machine's main memory, what a model may take."""
LARGE_MACHINE_BYTES = 96 * GIB
"""The same where the machine is not known: more than that few have."""

Choice = Callable[[Sequence[Candidate], PlanRequest], Candidate]


def nearest_shortfall_bytes(search: Search) -> int | None:
    """Memory missing on each GPU for the plan that comes nearest to fitting; None where no split is legal."""
    shortfalls = [
        search.fit(gpu, shape, limits).shortfall_bytes
        for method in allowed_quantization(search.facts, search.gpus, search.request.pins)
        for shape in search.shapes()
        if why_refused(search.setting(shape, method, search.gpus), search.traits) is None
        for gpus in search.gpu_sets(shape)
        for gpu in [tightest(gpus)]
        for limits in search.limits(shape, method, search.replicas(shape, len(gpus)), gpu)
    ]
    return min(shortfalls, default=None)


def ways_out(search: Search, choose: Choice) -> Iterator[Offer]:
    """A quantisation, a shorter context, smaller images, fewer pins, more GPUs: those that would do."""
    pins = search.request.pins
    if pins.quantization in (None, "none") and can_quantize(search.facts, search.gpus):
        for method in ("fp8", "bitsandbytes"):
            found = _again(search, choose, pins=replace(pins, quantization=method))
            if found:
                effect = f"fits as {_name(found)}; it changes answers slightly, so compare them first"
                yield Offer(change=f"--quantization {method}", effect=effect)
                break
    longest = longest_context(search)
    if SHORTEST_CONTEXT <= longest < search.max_model_len():
        found = _again(search, choose, pins=replace(pins, max_model_len=longest))
        if found:
            effect = f"fits as {_name(found)}: the longest context that does"
            yield Offer(change=f"--max-model-len {longest}", effect=effect)
    yield from _smaller_images(search, choose)
    free = Pins(
        max_model_len=pins.max_model_len,
        dtype=pins.dtype,
        quantization=pins.quantization,
        engine_args=pins.engine_args,
    )
    if free != pins:
        found = _again(search, choose, pins=free)
        if found:
            yield Offer(change="fewer pinned options", effect=f"fits as {_name(found)}")
    yield from _more_gpus(search, choose, free)
    yield from _as_gguf(search.facts, search.hardware.host)


def instead(facts: ModelFacts, usable: Sequence[Gpu], problem: str, host: Host | None) -> Iterator[Offer]:
    """What there is to do where the engine would not start on these GPUs at all."""
    if usable and "would refuse to start" in problem:
        if usable[0].spec.compute_capability == (7, 0):
            yield Offer(
                change="pip install 'vllm<0.20'", effect="the last releases whose builds have this generation"
            )
        yield from _as_gguf(facts, host)


def longest_context(search: Search) -> int:
    """The longest context that any legal shape holds, with as few sequences as may be; 0 where none does.

    The KV cache of a fit does not depend on the context asked for, so it is read off and not searched.
    """
    lean = replace(search, request=replace(search.request, pins=replace(search.request.pins, max_num_seqs=1)))
    most = 0
    for shape in lean.shapes():
        for method in allowed_quantization(lean.facts, lean.gpus, lean.request.pins):
            if why_refused(lean.setting(shape, method, lean.gpus), lean.traits) is not None:
                continue
            for gpus in lean.gpu_sets(shape):
                gpu = tightest(gpus)
                for limits in lean.limits(shape, method, 1, gpu):
                    fitted = lean.fit(gpu, shape, limits)
                    held = fitted.layout.longest(fitted.ledger.kv_cache_bytes, lean.facts.text.max_positions)
                    most = max(most, held)
    return most


def _smaller_images(search: Search, choose: Choice) -> Iterator[Offer]:
    vision, pins = search.facts.vision, search.request.pins
    if vision is None or not vision.max_pixels_flag or pins.max_pixels is not None:
        return
    pixels = SMALLER_IMAGES[0]
    found = _again(search, choose, pins=replace(pins, max_pixels=pixels))
    if found:
        effect = f"fits as {_name(found)}; large images are scaled down, and small text gets harder to read"
        yield Offer(change=f"--max-pixels {pixels}", effect=effect)


def _as_gguf(facts: ModelFacts, host: Host | None) -> Iterator[Offer]:
    """llama.cpp runs most of these models on the processor, from main memory, where that is large enough."""
    size = int(facts.parameters * GGUF_BYTES)
    if size > (MEMORY_SHARE * host.memory_bytes if host else LARGE_MACHINE_BYTES):
        return
    yield Offer(
        change="--engine llama_cpp --model FILE.gguf",
        effect=f"a four-bit GGUF of it takes about {gib(size)} of main memory, and the processor is slow",
    )


def _more_gpus(search: Search, choose: Choice, pins: Pins) -> Iterator[Offer]:
    spec = search.gpus[0].spec
    idle = replace(search.gpus[0], free_bytes=max(gpu.free_bytes for gpu in search.gpus), processes=())
    for count in range(len(search.gpus) + 1, MOST_GPUS + 1):
        gpus = tuple(replace(idle, index=index) for index in range(count))
        links = tuple((a, b, spec.link) for a in range(count) for b in range(a + 1, count))
        found = _again(
            search, choose, pins=pins, hardware=replace(search.hardware, gpus=gpus, links=links), gpus=gpus
        )
        if found:
            yield Offer(change=f"{count}x {spec.title}", effect=f"fits as {_name(found)}")
            return


def _again(
    search: Search,
    choose: Choice,
    *,
    pins: Pins,
    hardware: Hardware | None = None,
    gpus: tuple[Gpu, ...] | None = None,
) -> Candidate | None:
    other = replace(
        search,
        request=replace(search.request, pins=pins),
        gpus=gpus or search.gpus,
        hardware=hardware or search.hardware,
    )
    found, _ = other.candidates(allowed_quantization(other.facts, other.gpus, pins))
    return choose(found, other.request) if found else None


def _name(candidate: Candidate) -> str:
    return plan_name(candidate.plan.replicas, candidate.shape, candidate.plan.quantization)
