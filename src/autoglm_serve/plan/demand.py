"""The two questions turned round: how many GPUs a load needs, and how many phones a machine carries.

Each is answered by deciding again, for more GPUs or more sessions, with the number halved in between.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from autoglm_serve.core.hardware import Gpu, Hardware
from autoglm_serve.plan.choose import Decision, decide
from autoglm_serve.plan.request import Goal
from autoglm_serve.plan.score import missed

MOST_GPUS = 64
MOST_PHONES = 4096
PRECISION = 0.05
"""Of a number of phones: a finer one is beyond what is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """GPUs of one kind that meet the targets."""

    gpus: int
    decision: Decision


def met(decision: Decision) -> bool:
    """There is a plan, and it meets the targets."""
    plan = decision.chosen
    return plan is not None and plan.predicted is not None and missed(plan.predicted, decision.request) <= 0


def gpus_needed(decision: Decision) -> Need | None:
    """The fewest GPUs like the first of these that meet the targets; None where 64 do not."""
    if not decision.hardware.gpus:
        return None

    def tried(count: int) -> Decision:
        return _again(decision, hardware=_alike(decision.hardware, count))

    found = _least(1, MOST_GPUS, tried)
    return None if found is None else Need(gpus=found[0], decision=found[1])


def phones_carried(decision: Decision) -> Decision | None:
    """The decision for the most sessions that still meets the targets; None where one does not."""

    def tried(sessions: int) -> Decision:
        return _again(decision, sessions=sessions, hardware=decision.hardware)

    best, failed, sessions = None, MOST_PHONES + 1, 1
    while sessions <= MOST_PHONES:
        found = tried(sessions)
        if not met(found):
            failed = sessions
            break
        best, sessions = found, sessions * 2
    if best is None:
        return None
    low = best.request.workload.sessions
    while failed - low > max(1, int(PRECISION * low)):
        middle = (low + failed) // 2
        found = tried(middle)
        if met(found):
            best, low = found, middle
        else:
            failed = middle
    return best


def _least(low: int, high: int, tried: Callable[[int], Decision]) -> tuple[int, Decision] | None:
    """The smallest number whose decision meets the targets, found by doubling and halving."""
    count, missing = low, low - 1
    found = tried(count)
    while not met(found):
        if count >= high:
            return None
        missing, count = count, min(high, count * 2)
        found = tried(count)
    while count - missing > 1:
        middle = (count + missing) // 2
        other = tried(middle)
        if met(other):
            count, found = middle, other
        else:
            missing = middle
    return count, found


def _alike(hardware: Hardware, count: int) -> Hardware:
    """So many idle GPUs like the first, linked as it is with the second, or as such cards usually are."""
    first = hardware.gpus[0]
    link = hardware.link(0, 1) if len(hardware.gpus) > 1 else first.spec.link
    free = max(gpu.free_bytes for gpu in hardware.gpus if gpu.spec.key == first.spec.key)
    gpus = tuple(_idle(first, index, free) for index in range(count))
    links = tuple((a, b, link) for a in range(count) for b in range(a + 1, count))
    return replace(hardware, gpus=gpus, links=links)


def _idle(gpu: Gpu, index: int, free_bytes: int) -> Gpu:
    return replace(gpu, index=index, free_bytes=free_bytes, processes=(), device="")


def _again(decision: Decision, *, hardware: Hardware, sessions: int | None = None) -> Decision:
    asked = decision.request
    if sessions is not None:
        asked = replace(asked, workload=replace(asked.workload, sessions=sessions))
    pins = replace(asked.pins, gpus=None, replicas=None) if sessions is None else asked.pins
    return decide(
        decision.facts,
        hardware,
        replace(asked, goal=Goal.TARGETS, pins=pins),
        decision.traits,
        decision.constants,
    )
