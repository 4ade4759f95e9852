"""The ways of spreading a model over GPUs, and which GPUs form each group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import Hardware, Link

LINK_ORDER = tuple(Link)
MOST_GPUS_A_REPLICA = 16
"""Of one machine: more than any NVLink group of one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Tensor parallel x pipeline parallel, and how the vision tower is spread."""

    tensor_parallel: int
    pipeline_parallel: int = 1
    encoder_data_parallel: bool = False

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def name(self) -> str:
        pipeline = f"PP{self.pipeline_parallel}" if self.pipeline_parallel > 1 else ""
        tensor = f"TP{self.tensor_parallel}" if self.tensor_parallel > 1 or not pipeline else ""
        return f"{tensor}{pipeline}"


def shapes(facts: ModelFacts, gpus: int, link: Link) -> Iterator[Shape]:
    """Every shape of one replica on at most `gpus` GPUs, smallest first; whether an engine takes it is
    `plan.legality`'s."""
    for total in range(1, min(gpus, MOST_GPUS_A_REPLICA) + 1):
        for pipeline in range(1, total + 1):
            if total % pipeline == 0:
                yield spread(facts, total // pipeline, pipeline, link)


def spread(facts: ModelFacts, ways: int, stages: int, link: Link) -> Shape:
    """A shape, with the vision tower spread as is best for it."""
    return Shape(
        tensor_parallel=ways,
        pipeline_parallel=stages,
        encoder_data_parallel=_whole_images(facts, ways, link),
    )


def _whole_images(facts: ModelFacts, ways: int, link: Link) -> bool:
    """Give each GPU whole images: where the tower does not divide, or where all-reduces are slow.

    One image per request over NVLink is faster with the tower split; over PCIe its all-reduces cost more
    than they save.
    """
    vision = facts.vision
    if vision is None or ways == 1 or not vision.encoder_data_parallel:
        return False
    uneven = bool(vision.heads % ways or vision.intermediate % ways)
    return uneven or link is not Link.NVLINK


def gpu_groups(
    hardware: Hardware, usable: Sequence[int], size: int, count: int
) -> tuple[tuple[int, ...], ...]:
    """`count` disjoint groups of `size` GPUs, each grown along the best links first.

    Returns fewer where there are not enough GPUs. A greedy choice: start at the lowest free index, add the
    GPU whose worst link into the group is best.
    """
    rank = {pair: LINK_ORDER.index(link) for pair, link in hardware.by_pair().items()}
    missing = LINK_ORDER.index(Link.HOST)

    def worst(gpu: int, group: Sequence[int]) -> int:
        return max(rank.get((min(gpu, other), max(gpu, other)), missing) for other in group)

    free = sorted(usable)
    groups: list[tuple[int, ...]] = []
    while len(free) >= size and len(groups) < count:
        group = [free.pop(0)]
        while len(group) < size:
            best = min(free, key=lambda gpu: (worst(gpu, group), gpu))
            free.remove(best)
            group.append(best)
        groups.append(tuple(sorted(group)))
    return tuple(groups)
