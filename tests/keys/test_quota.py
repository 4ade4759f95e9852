"""Limits, held against a list of everything that was let in."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.keys.key import Limits
from autoglm_serve.keys.quota import (
    CELL_S,
    CELLS,
    DAY_S,
    ROW,
    TOKENS,
    TOTAL_TOKENS,
    Charge,
    Denied,
    charge,
    settle,
    standing,
)

START_S = 1_000_000 * DAY_S
LIMITS = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(1, 6),
    tokens_per_minute=st.none() | st.integers(1, 60),
    requests_per_day=st.none() | st.integers(1, 20),
    tokens_per_day=st.none() | st.integers(1, 200),
    budget_tokens=st.none() | st.integers(1, 500),
)
ASKED = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(0, 20)), max_size=60)


@dataclass
class Books:
    """Everything that was let in: when, and how many tokens it took in the end."""

    entries: list[tuple[int, int]] = field(default_factory=list)

    def since(self, first_s: int, until_s: int) -> tuple[int, int]:
        found = [tokens for at_s, tokens in self.entries if first_s <= at_s <= until_s]
        return len(found), sum(found)


def within(limit: int | None, spent: int) -> bool:
    return limit is None or spent <= limit


@settings(max_examples=300)
@given(LIMITS, ASKED, st.integers(0, DAY_S))
def test_no_minute_no_day_and_no_budget_holds_more_than_its_limit(
    limits: Limits, asked: list[tuple[int, int, int]], begin_s: int
) -> None:
    row, books, now_s = [0] * ROW, Books(), START_S + begin_s
    for pause_s, tokens, _ in asked:
        now_s += pause_s
        if isinstance(charge(row, limits, now_s, tokens), Denied):
            continue
        books.entries.append((now_s, tokens))
        requests, spent = books.since(now_s - 59, now_s)
        assert within(limits.requests_per_minute, requests)
        assert within(limits.tokens_per_minute, spent)
        requests, spent = books.since(now_s - now_s % DAY_S, now_s)
        assert within(limits.requests_per_day, requests)
        assert within(limits.tokens_per_day, spent)
        assert within(limits.budget_tokens, books.since(0, now_s)[1])


@settings(max_examples=300)
@given(LIMITS, ASKED, st.integers(0, DAY_S))
def test_who_waits_as_long_as_is_said_gets_in(
    limits: Limits, asked: list[tuple[int, int, int]], begin_s: int
) -> None:
    row, now_s = [0] * ROW, START_S + begin_s
    for pause_s, tokens, _ in asked:
        now_s += pause_s
        first = said = charge(row, limits, now_s, tokens)
        while isinstance(said, Denied) and said.retry_after_s is not None:
            assert said.retry_after_s > 0
            now_s += said.retry_after_s
            said = charge(row, limits, now_s, tokens)
        if isinstance(said, Denied):
            most = getattr(limits, said.limit)
            assert tokens > most or said.limit == "budget_tokens", first


@given(ASKED)
def test_what_is_settled_counts_when_it_began(asked: list[tuple[int, int, int]]) -> None:
    row, now_s, books = [0] * ROW, START_S, Books()
    for pause_s, expected, taken in asked:
        now_s += pause_s
        charged = charge(row, Limits(), now_s, expected)
        assert isinstance(charged, Charge)
        settle(row, charged, taken)
        books.entries.append((now_s, taken))
        assert row[TOTAL_TOKENS] == books.since(0, now_s)[1]
        first_s = (now_s // CELL_S - CELLS + 1) * CELL_S
        assert sum(row[TOKENS : TOKENS + CELLS]) == books.since(first_s, now_s)[1]


@given(st.lists(st.integers(-200_000, 200_000), min_size=1, max_size=40), st.integers(1, 5))
def test_a_clock_that_jumps_gives_no_day_twice(jumps_s: list[int], most: int) -> None:
    """Every day that the clock has ever shown is given once at most; jumps back give nothing."""
    row, now_s, let_in, days = [0] * ROW, START_S, 0, set()
    for jump_s in jumps_s:
        now_s += jump_s
        for _ in range(most + 1):
            let_in += isinstance(charge(row, Limits(requests_per_day=most), now_s, 0), Charge)
        days.add(now_s // DAY_S)
    forward = sum(
        later > earlier
        for earlier, later in zip([START_S // DAY_S, *sorted(days)], sorted(days), strict=False)
    )
    rises = sum(1 for jump_s in jumps_s if jump_s > 0)
    assert let_in <= most * (1 + max(forward, rises))


def test_a_clock_that_swings_over_midnight_gives_one_day_more_and_no_other() -> None:
    row, limits = [0] * ROW, Limits(requests_per_day=2)
    let_in = 0
    for _ in range(10):
        for now_s in (START_S - 1, START_S + 1):
            let_in += sum(isinstance(charge(row, limits, now_s, 0), Charge) for _ in range(3))
    assert let_in == 4


def test_a_clock_that_was_a_year_ahead_is_not_believed_for_ever() -> None:
    row, limits = [0] * ROW, Limits(requests_per_day=1, requests_per_minute=1)
    assert isinstance(charge(row, limits, START_S + 365 * DAY_S, 0), Charge)
    assert isinstance(charge(row, limits, START_S, 0), Denied)
    assert isinstance(charge(row, limits, START_S + DAY_S, 0), Charge)


@pytest.mark.parametrize(("in_flight", "let_in"), [(0, True), (1, True), (2, False), (3, False)])
def test_no_more_at_the_same_time_than_the_limit(in_flight: int, let_in: bool) -> None:
    said = charge([0] * ROW, Limits(concurrency=2), START_S, 0, in_flight)
    assert isinstance(said, Charge) is let_in


def test_what_can_never_fit_is_not_told_to_wait() -> None:
    for name in ("tokens_per_minute", "tokens_per_day", "budget_tokens"):
        said = charge([0] * ROW, Limits(**{name: 10}), START_S, 11)
        assert said == Denied(limit=name, most=10, retry_after_s=None)


def test_what_is_left_is_told_of_the_minute_first() -> None:
    row, limits = [0] * ROW, Limits(requests_per_minute=3, tokens_per_day=100)
    charged = charge(row, limits, START_S + 5, 30)
    assert isinstance(charged, Charge)
    requests, tokens = standing(limits, charged, START_S + 5)
    assert requests is not None
    assert (requests.limit, requests.left) == (3, 2)
    assert tokens is not None
    assert (tokens.limit, tokens.left, tokens.reset_s) == (100, 70, DAY_S - 5)
    assert standing(Limits(), charged, START_S) == (None, None)
