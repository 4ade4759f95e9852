"""Which ways of spreading a model over GPUs are legal, and which GPUs form each group.

Rules are the ones that engines enforce: attention heads must divide, key/value heads divide or are copied,
the MLP divides, and the vision tower divides unless whole images go to each GPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import Hardware, Link

LINK_ORDER = tuple(Link)


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


def why_illegal(facts: ModelFacts, shape: Shape) -> str | None:
    """Why an engine would refuse this shape; None where it would not."""
    text, ways = facts.text, shape.tensor_parallel
    if text.heads % ways:
        return f"{text.heads} attention heads do not divide by {ways}"
    if text.kv_heads % ways and ways % text.kv_heads:
        return f"{text.kv_heads} key/value heads neither divide by {ways} nor repeat evenly over it"
    if text.intermediate % ways or (text.expert_intermediate % ways if text.experts else False):
        return f"the MLP of {text.intermediate} columns does not divide by {ways}"
    if facts.vision and facts.vision.heads % ways and not shape.encoder_data_parallel:
        return f"the vision tower's {facts.vision.heads} heads do not divide by {ways}"
    if shape.pipeline_parallel > text.layers:
        return f"{text.layers} layers are fewer than {shape.pipeline_parallel} pipeline stages"
    return None


def legal_tensor_parallel(facts: ModelFacts, most: int) -> tuple[int, ...]:
    """Every legal tensor-parallel size up to `most`."""
    data = bool(facts.vision and facts.vision.encoder_data_parallel)
    sizes = range(1, most + 1)
    return tuple(
        n
        for n in sizes
        if not why_illegal(facts, Shape(tensor_parallel=n, encoder_data_parallel=data and n > 1))
    )


def shapes(facts: ModelFacts, gpus: int, link: Link) -> Iterator[Shape]:
    """Every legal shape of one replica on at most `gpus` GPUs, smallest first."""
    for total in range(1, gpus + 1):
        for pipeline in range(1, total + 1):
            if total % pipeline:
                continue
            shape = Shape(
                tensor_parallel=total // pipeline,
                pipeline_parallel=pipeline,
                encoder_data_parallel=_whole_images(facts, total // pipeline, link),
            )
            if why_illegal(facts, shape) is None:
                yield shape


def _whole_images(facts: ModelFacts, ways: int, link: Link) -> bool:
    """Give each GPU whole images: where the tower does not divide, or where all-reduces are slow.

    One image per request over NVLink is faster with the tower split; over PCIe its all-reduces cost more
    than they save.
    """
    vision = facts.vision
    if vision is None or ways == 1 or not vision.encoder_data_parallel:
        return False
    return bool(vision.heads % ways) or link is not Link.NVLINK


def gpu_groups(
    hardware: Hardware, usable: Sequence[int], size: int, count: int
) -> tuple[tuple[int, ...], ...]:
    """`count` disjoint groups of `size` GPUs, each grown along the best links first.

    Returns fewer where there are not enough GPUs. A greedy choice: start at the lowest free index, add the
    GPU whose worst link into the group is best.
    """
    free = sorted(usable)
    groups: list[tuple[int, ...]] = []
    while len(free) >= size and len(groups) < count:
        group = [free.pop(0)]
        while len(group) < size:
            best = min(free, key=lambda gpu: (_worst(hardware, gpu, group), gpu))
            free.remove(best)
            group.append(best)
        groups.append(tuple(sorted(group)))
    return tuple(groups)


def _worst(hardware: Hardware, gpu: int, group: Sequence[int]) -> int:
    return max(LINK_ORDER.index(hardware.link(gpu, other)) for other in group)
