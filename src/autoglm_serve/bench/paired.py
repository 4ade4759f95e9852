"""Two targets against each other: rounds that alternate, the ratio of each pair, and their spread. Pure.

Machines are shared and noisy: what both meet in the same minute cancels in the ratio.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoglm_serve.bench.figures import Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Second target by first, over all pairs of rounds."""

    what: str
    median: float
    lowest: float
    highest: float
    better: str
    """more or less: which way is good."""

    @property
    def sure(self) -> bool:
        """Every pair says the same."""
        return self.lowest > 1.0 or self.highest < 1.0


_COMPARED: tuple[tuple[str, str, Callable[[Figures], float | None]], ...] = (
    ("steps/s", "more", lambda f: f.steps_per_s or None),
    ("good steps/s", "more", lambda f: f.good_steps_per_s or None),
    ("tokens/s", "more", lambda f: f.output_tokens_per_s or None),
    ("step p50", "less", lambda f: f.step.p50_s if f.step else None),
    ("step p99", "less", lambda f: f.step.p99_s if f.step else None),
    ("TTFT p50", "less", lambda f: f.ttft.p50_s if f.ttft else None),
    ("TTFT p99", "less", lambda f: f.ttft.p99_s if f.ttft else None),
    ("TPOT p50", "less", lambda f: f.tpot.p50_s if f.tpot else None),
)


def ratios(first: Sequence[Figures], second: Sequence[Figures]) -> tuple[Ratio, ...]:
    """Of what both of a pair have; pairs are rounds of the same number."""
    found = []
    for what, better, value in _COMPARED:
        pairs = [(value(a), value(b)) for a, b in zip(first, second, strict=False)]
        each = [b / a for a, b in pairs if a and b]
        if each:
            found.append(
                Ratio(
                    what=what,
                    median=statistics.median(each),
                    lowest=min(each),
                    highest=max(each),
                    better=better,
                )
            )
    return tuple(found)
