"""Whether an answer stays its own when others are asked at the same time."""

from concurrent.futures import ThreadPoolExecutor

from .finding import failed, warned
from .golden import GoldenScreen
from .screens import point_of
from .served_model import ServedModel

_ROUNDS = 2


def concurrency(subject: ServedModel) -> str:
    """Asked all at once, every question has the answer that it has alone."""
    alone = [answer.text for _, answer in subject.golden]
    bodies = [subject.body(screen.content()) for screen, _ in subject.golden] * _ROUNDS
    with ThreadPoolExecutor(len(bodies)) as pool:
        whole = list(pool.map(subject.address.whole, bodies[: len(alone)]))
        streamed = list(pool.map(subject.address.stream, bodies[len(alone) :]))
    other = 0
    for index, answer in enumerate([*whole, *streamed]):
        mine = alone[index % len(alone)]
        if answer.text == mine:
            continue
        if answer.text in alone:
            task = subject.golden[index % len(alone)][0].task
            raise failed(
                f"Asked at the same time as others, {task!r} got the answer of another question: "
                f"{answer.text[:120]!r}.",
                "Answers are exchanged on the way. Take out what stands before the engine, and try again.",
            )
        other += 1
    lost = [
        screen.task
        for (screen, before), answer in zip(subject.golden, whole, strict=True)
        if _hit(screen, before.text) and not _hit(screen, answer.text)
    ]
    if lost:
        raise warned(
            f"{len(lost)} of {len(alone)} are tapped rightly alone, wrongly in a crowd: {', '.join(lost)}.",
            "Numbers differ more in batches than they should: check the engine's version and its kernels.",
        )
    return f"{len(bodies)} at once, {len(bodies) - other} to the letter as alone, none exchanged"


def _hit(screen: GoldenScreen, text: str) -> bool:
    point = point_of(text)
    return point is not None and screen.is_hit(*point)
