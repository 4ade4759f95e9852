"""Which of the plans that fit is best for a goal, and in what the others are worse."""

from math import log

from autoglm_serve.core.ledger import Predicted
from autoglm_serve.plan.request import Goal, PlanRequest

CLOSE = 0.03
"""Scores nearer than this are a tie, which the simpler plan wins."""


def score(predicted: Predicted, request: PlanRequest) -> float:
    """Higher is better; differences are relative (natural logarithms), so 0.03 is three per cent."""
    alone = predicted.single_step_s(request.workload.output_tokens)
    match request.goal:
        case Goal.THROUGHPUT:
            return log(predicted.steps_per_s)
        case Goal.LATENCY:
            return -log(alone)
        case Goal.BALANCED:
            return 0.75 * log(predicted.steps_per_s) - 0.25 * log(alone)
        case Goal.TARGETS:
            return -missed(predicted, request)


def missed(predicted: Predicted, request: PlanRequest) -> float:
    """How far a plan is from its targets, as a sum of logarithms; 0 where it meets them."""
    missed = 0.0
    for value, target in (
        (predicted.ttft_s, request.target_ttft_s),
        (predicted.tpot_s, request.target_tpot_s),
    ):
        if target is not None and value > target:
            missed += log(value / target)
    return missed
