"""When nothing fits: by how much, and the nearest things that would, each tried by planning again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from autoglm_serve.core.hardware import Gpu, Hardware
from autoglm_serve.plan.memory import fit
from autoglm_serve.plan.reasons import Offer
from autoglm_serve.plan.request import Pins, Request
from autoglm_serve.plan.search import (
    Candidate,
    Search,
    allowed_quantization,
    can_quantize,
    plan_name,
    tightest,
)

SHORTER_CONTEXTS = (16_384, 12_288, 8_192, 6_144, 4_096)
MOST_GPUS = 8

Choice = Callable[[Sequence[Candidate], Request], Candidate]


def nearest_shortfall_bytes(search: Search) -> int:
    """Memory missing on each GPU for the plan that comes nearest to fitting."""
    shortfalls = [
        fit(search.facts, gpu, shape, limits, search.traits, search.constants).shortfall_bytes
        for method in allowed_quantization(search.facts, search.gpus, search.request.pins)
        for shape in search.shapes()
        for gpus in search.gpu_sets(shape)
        for gpu in [tightest(gpus)]
        for limits in search.limits(shape, method, search.replicas(shape, len(gpus)), gpu)
    ]
    return min(shortfalls, default=0)


def ways_out(search: Search, choose: Choice) -> Iterator[Offer]:
    """A quantisation, a shorter context, fewer pins, more GPUs: those of them that would do."""
    pins = search.request.pins
    if pins.quantization in (None, "none") and can_quantize(search.facts, search.gpus):
        found = _again(search, choose, pins=replace(pins, quantization="fp8"))
        if found:
            effect = f"fits as {_name(found)}; it changes answers slightly, so compare them first"
            yield Offer(change="--quantization fp8", effect=effect)
    for context in (tokens for tokens in SHORTER_CONTEXTS if tokens < search.max_model_len()):
        found = _again(search, choose, pins=replace(pins, max_model_len=context))
        if found:
            yield Offer(change=f"--max-model-len {context}", effect=f"fits as {_name(found)}")
            break
    free = Pins(max_model_len=pins.max_model_len, dtype=pins.dtype, quantization=pins.quantization)
    if free != pins:
        found = _again(search, choose, pins=free)
        if found:
            yield Offer(change="fewer pinned options", effect=f"fits as {_name(found)}")
    yield from _more_gpus(search, choose, free)


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
