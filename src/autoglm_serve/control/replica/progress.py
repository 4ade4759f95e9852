"""Whether a replica that carries requests gets on with them. Pure.

The engine's own counters of tokens are the evidence. Where it has none, it is the requests that it was
rid of, which also counts clients that lost patience: weaker, but never wrong about a replica that works.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is seen of a replica's work at one moment."""

    in_flight: int
    finished: int
    """Requests so far. It may fall when a gateway worker is replaced."""
    counters: int | None
    """A number that changes with every step of the engine; None where it does not tell, or not now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """Work that has not moved, and since when."""

    work: Work
    since_s: float


def after_look(before: Standstill | None, work: Work, now_s: float) -> Standstill:
    """What is known after a look; anything that moves starts the time anew."""
    if before is None or work.in_flight == 0 or _moved(before.work, work):
        return Standstill(work=work, since_s=now_s)
    return before


def _moved(before: Work, now: Work) -> bool:
    if before.counters is None:
        return now.finished != before.finished or now.counters is not None
    return now.counters not in (None, before.counters)
