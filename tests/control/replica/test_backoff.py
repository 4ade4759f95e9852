from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.control.replica.backoff import BackOff

crashes = st.integers(1, 10_000)
rolls = st.floats(0, 1, exclude_max=True)
RULE = BackOff(first_s=0.5, factor=2, most_s=30, jitter=0.25, stable_s=60)


def test_it_doubles_up_to_its_bound() -> None:
    waits = [RULE.delay_s(n, 0.5) for n in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(crashes, rolls)
def test_jitter_stays_within_its_share(n: int, roll: float) -> None:
    middle = RULE.delay_s(n, 0.5)
    assert middle * 0.75 <= RULE.delay_s(n, roll) <= middle * 1.25


@given(crashes, rolls, rolls)
def test_a_larger_roll_waits_no_less(n: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert RULE.delay_s(n, low) <= RULE.delay_s(n, high)


def test_a_stable_life_forgives_the_crashes_before_it() -> None:
    assert RULE.crashes_after(7, ready_for_s=59.9) == 8
    assert RULE.crashes_after(7, ready_for_s=60.0) == 1
