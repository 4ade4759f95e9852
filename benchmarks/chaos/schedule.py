"""When what breaks. Pure: a seed gives the same schedule for ever, so a run that failed can be run again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

_IN_THE_MIDDLE = (
    *("kill", "exit", "reset", "fin", "half", "error", "end", "done", "abort", "garbage", "hang", "freeze"),
)
SWITCHED = (
    *_IN_THE_MIDDLE,
    *("page", "nothing", "half_json", "error_body", "status:302", "status:520"),
    *("status:500", "status:503:1", "status:429:1", "drip", "split", "pings", "crlf", "close", "bad_head"),
    *("cut", "away", "pause"),
)
"""What the fault-switch engine does to some requests, and what is done to its process: `away` is killed and
stays so for a while (connections are refused), `pause` is SIGSTOP and SIGCONT (connections hang)."""
EMBEDDED = ("kill", "kill", "kill", "out of memory", "pause")
"""What is done to a real replica."""
SERVICE = ("worker killed", "worker paused", "control plane killed")
"""What is done to the service itself. A paused worker finds its clock moved on when it wakes."""
CHANGES = (
    *("settings changed", "workers renewed", "replicas renewed", "taken over", "worker told to leave"),
    *("worker short of files", "control plane short of files", "sockets deleted", "control plane paused"),
)
"""What is asked of the service, and what is taken from it."""

_AT_ONE_MOMENT = frozenset(_IN_THE_MIDDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """One fault."""

    at_s: float
    kind: str
    target: int
    """Which of those that could be hit, counted modulo their number."""
    piece: int
    """After how many pieces of an answer, for what strikes in the middle of one."""
    byte: int
    """After how many bytes, for what strikes anywhere."""
    times: int
    """How many requests it meets."""
    for_s: float
    """How long it lasts, for what lasts."""

    @property
    def fault(self) -> str:
        """As the fault-switch engine is told."""
        if self.kind in _AT_ONE_MOMENT:
            return f"{self.kind}:{self.piece}" if self.piece else self.kind
        coloured = {
            "drip": "drip:0.002",
            "split": f"split:{self.piece + 1}",
            "cut": f"cut:{self.byte}:{'fin' if self.times == 1 else 'reset'}",
        }
        return coloured.get(self.kind, self.kind)


def schedule(seed: int, duration_s: float, every_s: float, kinds: Sequence[str]) -> list[Blow]:
    """Blows at random moments, `every_s` apart in the mean; each kind comes before any comes twice."""
    rng = random.Random(seed)
    blows, at_s = list[Blow](), 0.0
    left: list[str] = []
    while (at_s := at_s + rng.uniform(0.5, 1.5) * every_s) < duration_s:
        left = left or rng.sample(kinds, len(kinds))
        blows.append(
            Blow(
                at_s=at_s,
                kind=left.pop(),
                target=rng.randrange(1000),
                piece=rng.randrange(0, 12),
                byte=rng.randrange(1, 4000),
                times=rng.choice((1, 1, 1, 2, 5)),
                for_s=rng.uniform(0.1, 3.0),
            )
        )
    return blows
