"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class CheckOutcome(StrEnum):
    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check and its outcome."""

    check: str
    outcome: CheckOutcome
    said: str
    """What was found, with its evidence."""
    next_step: str = ""
    """What mends it; empty where nothing needs to be."""
    seconds: float = 0.0


class Judged(Exception):
    """Ends a check early, with its outcome."""

    def __init__(self, outcome: CheckOutcome, said: str, next_step: str = "") -> None:
        super().__init__(said)
        self.outcome = outcome
        self.said = said
        self.next_step = next_step


def failed(said: str, next_step: str) -> Judged:
    return Judged(CheckOutcome.FAILED, said, next_step)


def warned(said: str, next_step: str) -> Judged:
    return Judged(CheckOutcome.WARNED, said, next_step)


def skipped(said: str, next_step: str = "") -> Judged:
    return Judged(CheckOutcome.SKIPPED, said, next_step)
