"""Choosing a plan: each legal shape is sized, those that fit are timed, the goal picks one, the rest say why.

Pure: facts, hardware, traits and constants come in, a `Decision` goes out. A model that does not fit is an
answer too, with the shortfall and the nearest things that would help.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoglm_serve.core.engine_traits import Constants, EngineTraits
from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import Hardware
from autoglm_serve.core.plan import Plan
from autoglm_serve.plan import reasons
from autoglm_serve.plan.alternatives import instead, nearest_shortfall_bytes, ways_out
from autoglm_serve.plan.reasons import Offer
from autoglm_serve.plan.request import Goal, PlanRequest
from autoglm_serve.plan.score import CLOSE
from autoglm_serve.plan.search import (
    Candidate,
    RejectedShape,
    Search,
    allowed_quantization,
    can_quantize,
    contradiction,
    usable_gpus,
)
from autoglm_serve.plan.start import StartTimes, lacking, start_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer: a plan or the reason there is none, what else was tried, and what would change it."""

    facts: ModelFacts
    hardware: Hardware
    request: PlanRequest
    traits: EngineTraits
    constants: Constants
    chosen: Plan | None = None
    problem: str = ""
    """Why there is no plan; empty where there is one."""
    rejected: tuple[RejectedShape, ...] = ()
    """Fastest first, then those that do not fit."""
    offers: tuple[Offer, ...] = ()
    sensitivities: tuple[Offer, ...] = ()
    warnings: tuple[str, ...] = ()
    start: StartTimes | None = None
    """What the plan takes beside the GPUs; None where there is none."""


def decide(
    facts: ModelFacts,
    hardware: Hardware,
    request: PlanRequest,
    traits: EngineTraits,
    constants: Constants,
) -> Decision:
    """Plan `facts` on `hardware`. Never raises for a model that does not fit: `chosen` is None then."""
    usable = usable_gpus(hardware, request.pins)
    base = Decision(
        facts=facts,
        hardware=hardware,
        request=request,
        traits=traits,
        constants=constants,
        problem=contradiction(facts, hardware, usable, request.pins, traits),
        warnings=(*facts.notes, *hardware.notes, *reasons.unweighed(request.pins)),
    )
    if base.problem:
        return replace(base, offers=tuple(instead(facts, usable, base.problem, hardware.host)))
    search = Search(
        facts=facts, hardware=hardware, gpus=usable, request=request, traits=traits, constants=constants
    )
    candidates, unfit = search.candidates(allowed_quantization(facts, usable, request.pins))
    if not candidates:
        problem = reasons.nothing_fits(search, nearest_shortfall_bytes(search), unfit)
        return replace(base, problem=problem, rejected=tuple(unfit), offers=tuple(ways_out(search, best_of)))
    return _chosen(base, search, candidates, unfit)


def _chosen(
    base: Decision, search: Search, candidates: Sequence[Candidate], unfit: Sequence[RejectedShape]
) -> Decision:
    request = search.request
    best = best_of(candidates, request)
    losers = sorted(
        (candidate for candidate in candidates if candidate is not best),
        key=lambda candidate: -candidate.predicted.steps_per_s,
    )
    fp8, _ = search.candidates(("fp8",)) if can_quantize(search.facts, search.gpus) else ([], [])
    plan = replace(best.plan, predicted=reasons.ranged(search, best))
    start = start_of(search.facts, plan)
    return replace(
        base,
        chosen=replace(plan, reasons=tuple(reasons.reasons(search, best, candidates))),
        rejected=(*(reasons.lost(other, best, request) for other in losers), *unfit),
        offers=tuple(reasons.offers(search, best, best_of(fp8, request) if fp8 else None)),
        sensitivities=tuple(reasons.sensitivities(search, best)),
        warnings=(
            *base.warnings,
            *reasons.warnings(search, best),
            *reasons.ties(search, best, losers),
            *lacking(start, search.hardware.host),
        ),
        start=start,
    )


def best_of(candidates: Sequence[Candidate], request: PlanRequest) -> Candidate:
    """The highest score; among near ties the one with the smallest replicas, then unquantised."""
    top = max(candidate.score for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.score >= top - CLOSE]
    if request.goal is Goal.TARGETS:  # several may meet the targets: the most steps per second then
        return max(near, key=lambda c: (c.predicted.steps_per_s, -c.shape.gpus))
    return min(
        near,
        key=lambda c: (c.shape.gpus, c.shape.pipeline_parallel, c.plan.quantization is not None, -c.score),
    )
