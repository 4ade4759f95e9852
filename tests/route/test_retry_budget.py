"""A budget for retries: enough for a death, not for a storm, and each client's its own."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.route.retry_budget import MOST, PER_S, SHARE, TOGETHER, RetryBudgets


def spend(budgets: RetryBudgets, times: int, now_s: float = 0.0, client: str = "a") -> int:
    """As many retries as the client may make, at most `times`."""
    return next((done for done in range(times) if not budgets.spend(client, now_s)), times)


def test_a_replica_that_dies_with_all_its_streams_is_within_the_budget() -> None:
    assert spend(RetryBudgets(), 10_000) == MOST


def test_a_storm_is_held_to_a_share_of_the_requests() -> None:
    budgets, retries = RetryBudgets(), 0
    spend(budgets, 10_000)
    for _ in range(1000):
        budgets.asked("a")
        retries += spend(budgets, 5)
    assert 1000 * SHARE - 1 <= retries <= 1000 * SHARE + 1


def test_time_earns_retries_too_where_there_is_little_traffic() -> None:
    budgets = RetryBudgets()
    spend(budgets, 10_000)
    assert spend(budgets, 100) == 0
    assert spend(budgets, 100, now_s=2.0) == 2 * PER_S


def test_a_client_that_has_spent_its_own_leaves_another_all_of_its() -> None:
    budgets = RetryBudgets()
    spend(budgets, 10_000, client="greedy")
    assert spend(budgets, 10_000, client="modest") == MOST


def test_a_fleet_that_fails_everybody_is_not_asked_over_and_over_by_many_clients() -> None:
    budgets = RetryBudgets()
    assert sum(spend(budgets, 10_000, client=str(number)) for number in range(50)) == TOGETHER * MOST


def test_clients_beyond_number_are_forgotten_and_not_kept() -> None:
    budgets, now_s = RetryBudgets(), 0.0
    for number in range(20_000):
        now_s += 1.0
        assert budgets.spend(str(number), now_s)
    assert len(budgets._purses) <= 4096


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.floats(0, 1e6)), max_size=50))
def test_nobody_spends_more_than_was_earned(steps: list[tuple[str, float | None]]) -> None:
    budgets, now_s, earned, spent = RetryBudgets(), 0.0, TOGETHER * MOST, 0
    for client, step in steps:
        if step is None:
            budgets.asked(client)
            earned += SHARE
        else:
            now_s += step
            earned += TOGETHER * PER_S * step
            spent += spend(budgets, 5000, now_s, client)
        assert spent <= earned
