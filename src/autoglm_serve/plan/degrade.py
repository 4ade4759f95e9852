"""The one plan that is worth trying after a start has failed: a little less of what it failed on. Pure."""

from dataclasses import replace

from autoglm_serve.core.plan import Plan
from autoglm_serve.core.replica import ExitCause

FEWEST_SEQUENCES = 4
SHORTEST_CONTEXT = 8_192
LESS_SHARE = 0.05


def degraded(plan: Plan, cause: ExitCause) -> Plan | None:
    """The plan to offer next; None where trying less of anything cannot help.

    Answers stay what they were: nothing is quantised and no image is shrunk.
    """
    match cause:
        case ExitCause.OUT_OF_MEMORY:
            return _less_memory(plan)
        case ExitCause.COLLECTIVES if plan.tensor_parallel > 1 and plan.peer_access:
            return _with(plan, "the GPUs exchange data through host memory", peer_access=False)
        case _:
            return None


def _less_memory(plan: Plan) -> Plan | None:
    sequences, context, share = plan.max_num_seqs, plan.max_model_len, plan.gpu_memory_utilization
    if sequences and sequences // 2 >= FEWEST_SEQUENCES:
        less = round(share - LESS_SHARE, 2) if share and share > 0.8 else share
        words = f"max_num_seqs {sequences} → {sequences // 2}"
        if less != share:
            words += f", gpu_memory_utilization {share} → {less}"
        return _with(plan, words, max_num_seqs=sequences // 2, gpu_memory_utilization=less)
    if context and context > SHORTEST_CONTEXT:
        shorter = max(SHORTEST_CONTEXT, context // 2)
        return _with(plan, f"max_model_len {context:,} → {shorter:,}", max_model_len=shorter)
    return None


def _with(plan: Plan, words: str, **changes: object) -> Plan:
    reason = f"less than planned ({words})"
    return replace(plan, reasons=(reason, *plan.reasons), ledger=None, predicted=None, **changes)  # type: ignore[arg-type]
