"""Asks two addresses the same recorded chats in turns, and holds the answers against each other."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .agreement import Agreement, agreement
from .recording import RecordedChat
from .server import AskedServer, NotAnswered

_GREEDY = {"temperature": 0, "seed": 0}
_LEFT_OUT = ("stream", "stream_options", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An address, and the model that it is asked for."""

    server: AskedServer
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SideReply:
    """What one side answered, and how long it took."""

    text: str = ""
    seconds: float
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One chat and both answers."""

    chat: RecordedChat
    first: SideReply
    second: SideReply
    agreement: Agreement


def compare(
    chats: Sequence[RecordedChat], first: Side, second: Side, *, tolerance: float, as_recorded: bool = False
) -> Iterator[Pair]:
    """Every chat, asked of both, each in turn the first. Greedy, unless it is to be sampled `as_recorded`."""
    for number, chat in enumerate(chats):
        sampling = {} if as_recorded else _GREEDY
        if number % 2:
            theirs = _ask(second, chat, sampling)
            ours = _ask(first, chat, sampling)
        else:
            ours = _ask(first, chat, sampling)
            theirs = _ask(second, chat, sampling)
        yield Pair(chat=chat, first=ours, second=theirs, agreement=_held(ours, theirs, tolerance))


def _ask(side: Side, chat: RecordedChat, sampling: dict[str, Any]) -> SideReply:
    kept = {name: value for name, value in chat.body.items() if name not in _LEFT_OUT}
    began_s = time.monotonic()
    try:
        text = side.server.whole({**kept, **sampling, "model": side.model}).text
    except NotAnswered as error:
        return SideReply(problem=str(error), seconds=time.monotonic() - began_s)
    return SideReply(text=text, seconds=time.monotonic() - began_s)


def _held(first: SideReply, second: SideReply, tolerance: float) -> Agreement:
    if first.problem or second.problem:
        return Agreement(same=False, how="not answered")
    return agreement(first.text, second.text, tolerance=tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All pairs, counted."""

    pairs: int
    same: int
    ways: tuple[tuple[str, int], ...]
    """How they agree or differ, the commonest first."""
    distance_p50: float | None
    distance_p99: float | None
    """Between taps, in thousandths of the screen."""
    latency_ratio: float | None
    """Seconds of the second against the first for the same chat: the median."""

    @property
    def share(self) -> float:
        return self.same / self.pairs if self.pairs else 0.0


def counted(pairs: Sequence[Pair]) -> Comparison:
    distances = sorted(pair.agreement.distance for pair in pairs if pair.agreement.distance is not None)
    answered = [pair for pair in pairs if not pair.first.problem and not pair.second.problem]
    ratios = [pair.second.seconds / max(pair.first.seconds, 1e-6) for pair in answered]
    return Comparison(
        pairs=len(pairs),
        same=sum(pair.agreement.same for pair in pairs),
        ways=tuple(Counter(pair.agreement.how for pair in pairs).most_common()),
        distance_p50=statistics.median(distances) if distances else None,
        distance_p99=distances[min(len(distances) - 1, round(0.99 * len(distances)))] if distances else None,
        latency_ratio=statistics.median(ratios) if ratios else None,
    )


def first_of(pairs: Sequence[Pair], most: int) -> tuple[Pair, ...]:
    """Those that differ, the furthest apart first."""
    differ = [pair for pair in pairs if not pair.agreement.same]
    return tuple(sorted(differ, key=lambda pair: -(pair.agreement.distance or 0.0))[:most])
