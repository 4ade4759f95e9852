"""How much of its limits a key has spent, and whether one more request is within them. Pure.

What counts is a row of whole numbers, which these functions change in place. Minutes are counted in cells of
ten seconds, of which the present one and the six before it count: no 60 seconds hold more than the limit, and
what was spent is free again after 70 s at the latest. Days are those of UTC.

A clock that goes back gives nothing twice: counts stay until the day they were made in is over, as it was
read then. One that was more than a day ahead is not believed any longer than that.
"""

from dataclasses import dataclass
from typing import NamedTuple

from autoglm_serve.keys.key import Limits

CELL_S = 10
CELLS = 7
DAY_S = 86_400
OWNER, CELL, REQUESTS, TOKENS = 0, 1, 2, 2 + CELLS
DAY, DAY_REQUESTS, DAY_TOKENS, TOTAL_TOKENS = (2 + 2 * CELLS + column for column in range(4))
ROW = 24
"""Numbers in a row; the first is the caller's own, the last four are kept for later."""

Row = list[int]


class Standing(NamedTuple):
    """What is left of one bound, after a request that was let in."""

    limit: int
    left: int
    reset_s: int
    """Until all of it is free again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A request that is not within the limits."""

    limit: str
    """Its name, as in `Limits`."""
    most: int
    retry_after_s: int | None
    """None where waiting does not help."""


class Charge(NamedTuple):
    """What a request was charged in advance. One a request: a tuple is made in a third of the time."""

    tokens: int
    cell: int
    day: int
    requests_spent: int
    tokens_spent: int
    """This request among them: in the minute, or in the day where nothing bounds the minute."""


def charge(row: Row, limits: Limits, now_s: float, tokens: int, in_flight: int = 0) -> Charge | Denied:
    """Charge a request that is likely to take so many tokens, unless it is beyond a limit.

    `in_flight` are the requests of this key that are not answered yet.
    """
    second = int(now_s)
    if row[CELL] != second // CELL_S or row[DAY] != second // DAY_S:
        _roll(row, second)
    requests = row[DAY_REQUESTS] if limits.requests_per_minute is None else _minute(row, REQUESTS)
    spent = row[DAY_TOKENS] if limits.tokens_per_minute is None else _minute(row, TOKENS)
    denied = _beyond(row, limits, second, tokens, in_flight, requests, spent)
    if denied is not None:
        return denied
    cell, day = row[CELL], row[DAY]
    at = cell % CELLS
    row[REQUESTS + at] += 1
    row[TOKENS + at] += tokens
    row[DAY_REQUESTS] += 1
    row[DAY_TOKENS] += tokens
    row[TOTAL_TOKENS] += tokens
    return Charge(tokens, cell, day, requests + 1, spent + tokens)


def settle(row: Row, charged: Charge, tokens: int) -> None:
    """It took so many in the end. They count when it began."""
    more = tokens - charged.tokens
    if 0 <= row[CELL] - charged.cell < CELLS:
        row[TOKENS + charged.cell % CELLS] += more
    if row[DAY] == charged.day:
        row[DAY_TOKENS] += more
    row[TOTAL_TOKENS] += more


def standing(limits: Limits, charged: Charge, now_s: float) -> tuple[Standing | None, Standing | None]:
    """Of requests and of tokens: by the minute, or by the day where nothing bounds the minute."""
    return (
        _standing(limits.requests_per_minute, limits.requests_per_day, charged.requests_spent, now_s),
        _standing(limits.tokens_per_minute, limits.tokens_per_day, charged.tokens_spent, now_s),
    )


def _standing(minute: int | None, day: int | None, spent: int, now_s: float) -> Standing | None:
    if minute is not None:
        return Standing(minute, max(0, minute - spent), CELLS * CELL_S)
    return None if day is None else Standing(day, max(0, day - spent), DAY_S - int(now_s) % DAY_S)


def _roll(row: Row, second: int) -> None:
    """Let go of what is too long ago to count."""
    cell, day = second // CELL_S, second // DAY_S
    gone = cell - row[CELL]
    if gone:
        for old in range(1, min(gone, CELLS) + 1):
            row[REQUESTS + (row[CELL] + old) % CELLS] = row[TOKENS + (row[CELL] + old) % CELLS] = 0
        if gone > 0 or gone < -CELLS:
            row[CELL] = cell
    if day > row[DAY]:
        row[DAY_REQUESTS] = row[DAY_TOKENS] = 0
        row[DAY] = day
    elif day < row[DAY] - 1:
        row[DAY] = day


def _beyond(
    row: Row, limits: Limits, second: int, tokens: int, in_flight: int, requests: int, spent: int
) -> Denied | None:
    """`requests` and `spent` tokens are those of the minute, where it is bounded."""
    if limits.concurrency is not None and in_flight >= limits.concurrency:
        return Denied(limit="concurrency", most=limits.concurrency, retry_after_s=1)
    most = limits.requests_per_minute
    if most is not None and requests + 1 > most:
        return _wait(row, REQUESTS, "requests_per_minute", most, 1, second)
    most = limits.tokens_per_minute
    if most is not None and spent + tokens > most:
        return _wait(row, TOKENS, "tokens_per_minute", most, tokens, second)
    most = limits.requests_per_day
    if most is not None and row[DAY_REQUESTS] + 1 > most:
        return Denied(limit="requests_per_day", most=most, retry_after_s=DAY_S - second % DAY_S)
    most = limits.tokens_per_day
    if most is not None and row[DAY_TOKENS] + tokens > most:
        wait_s = DAY_S - second % DAY_S if tokens <= most else None
        return Denied(limit="tokens_per_day", most=most, retry_after_s=wait_s)
    most = limits.budget_tokens
    if most is not None and row[TOTAL_TOKENS] + tokens > most:
        return Denied(limit="budget_tokens", most=most, retry_after_s=None)
    return None


def _minute(row: Row, column: int) -> int:
    return sum(row[column : column + CELLS])


def _wait(row: Row, column: int, name: str, most: int, wanted: int, second: int) -> Denied:
    """Until enough cells have gone."""
    if wanted > most:
        return Denied(limit=name, most=most, retry_after_s=None)
    spent, cell = _minute(row, column), row[CELL]
    for age in range(CELLS - 1, -1, -1):
        spent -= row[column + (cell - age) % CELLS]
        if spent + wanted <= most:
            frees_s = (cell - age + CELLS) * CELL_S
            return Denied(limit=name, most=most, retry_after_s=max(1, frees_s - second))
    raise AssertionError("with nothing spent there is room")
