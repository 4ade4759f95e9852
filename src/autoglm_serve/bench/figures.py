"""What samples amount to: rates, percentiles, goodput, errors by kind. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autoglm_serve.bench.client import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Of one quantity, in seconds."""

    p50_s: float
    p90_s: float
    p99_s: float
    mean_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What a request must keep to count as good; None: whatever it takes."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    step_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHealth:
    """Whether the client itself was the limit."""

    lag_p99_s: float = 0.0
    """How late its event loop was when it should have run."""
    cpu_share: float = 0.0
    """Of one core."""

    @property
    def is_limit(self) -> bool:
        return self.lag_p99_s > 0.05 or self.cpu_share > 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run, or one window of it."""

    window_s: float
    requests: int
    errors: int
    errors_by_kind: Mapping[str, int] = field(default_factory=dict)
    steps_per_s: float = 0.0
    good_steps_per_s: float = 0.0
    """Of requests that kept every objective."""
    output_tokens_per_s: float = 0.0
    prompt_tokens_mean: float = 0.0
    output_tokens_mean: float = 0.0
    cached_share: float = 0.0
    """Of prompt tokens that the engine had in its prefix cache, where it says so."""
    step: Quantiles | None = None
    ttft: Quantiles | None = None
    tpot: Quantiles | None = None
    gap: Quantiles | None = None
    client: ClientHealth = field(default_factory=ClientHealth)

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 1.0


def ttft_s(sample: Sample) -> float | None:
    return None if sample.first_s is None else sample.first_s - sample.due_s


def tpot_s(sample: Sample) -> float | None:
    """Time per output token after the first; None where there was one token or none."""
    if sample.first_s is None or sample.output_tokens < 2:
        return None
    return (sample.ended_s - sample.first_s) / (sample.output_tokens - 1)


def step_s(sample: Sample) -> float:
    return sample.ended_s - sample.due_s


def is_good(sample: Sample, objectives: Objectives) -> bool:
    """It was answered, and within every objective."""
    bounds = (
        (ttft_s(sample), objectives.ttft_s),
        (tpot_s(sample), objectives.tpot_s),
        (step_s(sample), objectives.step_s),
    )
    return not sample.error and all(
        bound is None or value is None or value <= bound for value, bound in bounds
    )


def figures(
    samples: Sequence[Sample],
    window_s: tuple[float, float],
    objectives: Objectives,
    client: ClientHealth | None = None,
) -> Figures:
    """Of the samples that ended within the window [from, to)."""
    begin_s, end_s = window_s
    counted = [one for one in samples if begin_s <= one.ended_s < end_s]
    good = [one for one in counted if not one.error]
    span_s = max(end_s - begin_s, 1e-9)
    prompt = sum(one.prompt_tokens for one in good)
    return Figures(
        window_s=span_s,
        requests=len(counted),
        errors=len(counted) - len(good),
        errors_by_kind=dict(Counter(one.error for one in counted if one.error)),
        steps_per_s=len(good) / span_s,
        good_steps_per_s=sum(is_good(one, objectives) for one in good) / span_s,
        output_tokens_per_s=sum(one.output_tokens for one in good) / span_s,
        prompt_tokens_mean=prompt / len(good) if good else 0.0,
        output_tokens_mean=sum(one.output_tokens for one in good) / len(good) if good else 0.0,
        cached_share=sum(one.cached_tokens for one in good) / prompt if prompt else 0.0,
        step=quantiles(map(step_s, good)),
        ttft=quantiles(filter(None, map(ttft_s, good))),
        tpot=quantiles(filter(None, map(tpot_s, good))),
        gap=quantiles(gap for one in good for gap in one.gaps_s),
        client=client or ClientHealth(),
    )


def quantiles(values: Iterable[float]) -> Quantiles | None:
    """None of no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Quantiles(
        p50_s=percentile(ordered, 0.5),
        p90_s=percentile(ordered, 0.9),
        p99_s=percentile(ordered, 0.99),
        mean_s=math.fsum(ordered) / len(ordered),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Between the two nearest ranks, as numpy's default does (Hyndman and Fan's type 7)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
