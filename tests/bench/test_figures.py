"""What samples amount to."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.bench.client import Sample
from autoglm_serve.bench.figures import Figures, Objectives, figures, is_good, percentile, quantiles, tpot_s
from autoglm_serve.bench.paired import ratios


def sample(
    ended_s: float, *, took_s: float = 1.0, first_s: float = 0.4, tokens: int = 4, error: str = ""
) -> Sample:
    due_s = ended_s - took_s
    return Sample(
        due_s=due_s,
        first_s=None if error else due_s + first_s,
        ended_s=ended_s,
        error=error,
        prompt_tokens=100,
        cached_tokens=50,
        output_tokens=tokens,
    )


def test_only_what_ended_in_the_window_counts() -> None:
    found = figures([sample(1.0), sample(5.0), sample(14.9), sample(15.0)], (5.0, 15.0), Objectives())
    assert (found.requests, found.steps_per_s) == (2, 0.2)
    assert found.cached_share == 0.5
    assert found.step is not None
    assert found.step.p50_s == pytest.approx(1.0)


def test_errors_are_told_by_kind_and_are_no_steps() -> None:
    asked = [sample(1.0, error="503 queue_full"), sample(2.0, error="503 queue_full"), sample(3.0)]
    found = figures(asked, (0.0, 10.0), Objectives())
    assert (found.errors, found.errors_by_kind) == (2, {"503 queue_full": 2})
    assert found.error_share == pytest.approx(2 / 3)
    assert found.steps_per_s == pytest.approx(0.1)


def test_nothing_answered_is_all_errors() -> None:
    assert figures([], (0.0, 1.0), Objectives()).error_share == 1.0


def test_a_good_step_keeps_every_objective() -> None:
    step = sample(2.0, took_s=1.0, first_s=0.4, tokens=4)
    assert tpot_s(step) == pytest.approx(0.2)
    assert is_good(step, Objectives(ttft_s=0.5, tpot_s=0.3, step_s=1.1))
    assert not is_good(step, Objectives(ttft_s=0.3))
    assert not is_good(step, Objectives(tpot_s=0.1))
    assert not is_good(step, Objectives(step_s=0.9))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    ordered = sorted(values)
    expected = statistics.quantiles(ordered, n=10, method="inclusive")
    assert percentile(ordered, 0.9) == pytest.approx(expected[8])
    found = quantiles(values)
    assert found is not None
    assert ordered[0] <= found.p50_s <= found.p90_s <= found.p99_s <= ordered[-1]


def test_pairs_say_the_ratio_and_whether_it_is_sure() -> None:
    def made(rate: int) -> Figures:
        ended = [sample(1.0 + place / rate) for place in range(rate * 10)]
        return figures(ended, (0.0, 20.0), Objectives())

    compared = ratios([made(rate) for rate in (2, 4, 2)], [made(rate) for rate in (4, 8, 6)])
    steps = next(one for one in compared if one.what == "steps/s")
    assert (steps.median, steps.lowest, steps.highest) == pytest.approx((2.0, 2.0, 3.0))
    assert steps.sure
