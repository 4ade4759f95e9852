"""A budget for retries: enough for a death, not for a storm."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.route.retry_budget import MOST, PER_S, SHARE, RetryBudget


def spend(budget: RetryBudget, times: int, now_s: float = 0.0) -> tuple[RetryBudget, int]:
    """As many retries as the budget allows, at most `times`; what is left, and how many they were."""
    for done in range(times):
        left = budget.spend(now_s)
        if left is None:
            return budget, done
        budget = left
    return budget, times


def test_a_replica_that_dies_with_all_its_streams_is_within_the_budget() -> None:
    assert spend(RetryBudget(), int(MOST)) == (RetryBudget(left=0.0), int(MOST))


def test_a_storm_is_held_to_a_share_of_the_requests() -> None:
    budget, _ = spend(RetryBudget(), 10_000)
    retries = 0
    for _ in range(1000):
        budget, done = spend(budget.asked(), 5)
        retries += done
    assert retries <= 1000 * SHARE + 1


def test_time_earns_retries_too_where_there_is_little_traffic() -> None:
    empty, _ = spend(RetryBudget(), 10_000)
    assert empty.spend(0.0) is None
    assert spend(empty, 100, now_s=2.0)[1] == 2 * PER_S


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=50))
def test_it_never_holds_more_than_it_may_nor_less_than_nothing(steps: list[float | None]) -> None:
    budget, now_s = RetryBudget(), 0.0
    for step in steps:
        if step is None:
            budget = budget.asked()
        else:
            now_s += step
            budget = budget.spend(now_s) or budget
        assert 0 <= budget.left <= MOST
