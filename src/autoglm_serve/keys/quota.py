"""How much of its limits a key has spent, and whether one more request is within them. Pure.

What counts is a row of whole numbers, in shared memory or anywhere else, which these functions change in
place. Minutes are counted in cells of ten seconds, of which the present one and the six before it count: no
60 seconds hold more than the limit, and what was spent is free again after 70 s at the latest. Days are those
of UTC.

A clock that goes back gives nothing twice: counts stay until the day they were made in is over, as it was
read then. One that was more than a day ahead is not believed any longer than that.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from autoglm_serve.keys.key import Limits

CELL_S = 10
CELLS = 7
DAY_S = 86_400
OWNER, CELL, REQUESTS, TOKENS = 0, 1, 2, 2 + CELLS
DAY, DAY_REQUESTS, DAY_TOKENS, TOTAL_TOKENS = (2 + 2 * CELLS + column for column in range(4))
ROW = 24
"""Numbers in a row; the first is the caller's own, the last four are kept for later."""

Row: TypeAlias = "memoryview[int] | list[int]"


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


def charge(row: Row, limits: Limits, now_s: float, tokens: int, in_flight: int = 0) -> Charge | Denied:
    """Charge a request that is likely to take so many tokens, unless it is beyond a limit.

    `in_flight` are the requests of this key that are not answered yet.
    """
    _roll(row, int(now_s))
    denied = _beyond(row, limits, now_s, tokens, in_flight)
    if denied is not None:
        return denied
    cell, day = row[CELL], row[DAY]
    row[REQUESTS + cell % CELLS] += 1
    row[TOKENS + cell % CELLS] += tokens
    row[DAY_REQUESTS] += 1
    row[DAY_TOKENS] += tokens
    row[TOTAL_TOKENS] += tokens
    return Charge(tokens=tokens, cell=cell, day=day)


def settle(row: Row, charged: Charge, tokens: int) -> None:
    """It took so many in the end. They count when it began."""
    more = tokens - charged.tokens
    if 0 <= row[CELL] - charged.cell < CELLS:
        row[TOKENS + charged.cell % CELLS] += more
    if row[DAY] == charged.day:
        row[DAY_TOKENS] += more
    row[TOTAL_TOKENS] += more


def standing(row: Row, limits: Limits, now_s: float) -> tuple[Standing | None, Standing | None]:
    """Of requests and of tokens: by the minute, or by the day where nothing bounds the minute."""
    to_morning_s = DAY_S - int(now_s) % DAY_S
    return (
        _standing(limits.requests_per_minute, _minute(row, REQUESTS), CELLS * CELL_S)
        or _standing(limits.requests_per_day, row[DAY_REQUESTS], to_morning_s),
        _standing(limits.tokens_per_minute, _minute(row, TOKENS), CELLS * CELL_S)
        or _standing(limits.tokens_per_day, row[DAY_TOKENS], to_morning_s),
    )


def _standing(limit: int | None, spent: int, reset_s: int) -> Standing | None:
    return None if limit is None else Standing(limit=limit, left=max(0, limit - spent), reset_s=reset_s)


def _roll(row: Row, now_s: int) -> None:
    """Let go of what is too long ago to count."""
    cell, day = now_s // CELL_S, now_s // DAY_S
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


def _beyond(row: Row, limits: Limits, now_s: float, tokens: int, in_flight: int) -> Denied | None:
    if limits.concurrency is not None and in_flight >= limits.concurrency:
        return Denied(limit="concurrency", most=limits.concurrency, retry_after_s=1)
    most = limits.requests_per_minute
    if most is not None and _minute(row, REQUESTS) + 1 > most:
        return _wait(row, REQUESTS, "requests_per_minute", most, 1, now_s)
    most = limits.tokens_per_minute
    if most is not None and _minute(row, TOKENS) + tokens > most:
        return _wait(row, TOKENS, "tokens_per_minute", most, tokens, now_s)
    to_morning_s = DAY_S - int(now_s) % DAY_S
    most = limits.requests_per_day
    if most is not None and row[DAY_REQUESTS] + 1 > most:
        return Denied(limit="requests_per_day", most=most, retry_after_s=to_morning_s)
    most = limits.tokens_per_day
    if most is not None and row[DAY_TOKENS] + tokens > most:
        wait_s = to_morning_s if tokens <= most else None
        return Denied(limit="tokens_per_day", most=most, retry_after_s=wait_s)
    most = limits.budget_tokens
    if most is not None and row[TOTAL_TOKENS] + tokens > most:
        return Denied(limit="budget_tokens", most=most, retry_after_s=None)
    return None


def _minute(row: Row, column: int) -> int:
    return sum(row[column : column + CELLS])


def _wait(row: Row, column: int, name: str, most: int, wanted: int, now_s: float) -> Denied:
    """Until enough cells have gone."""
    if wanted > most:
        return Denied(limit=name, most=most, retry_after_s=None)
    spent, cell = _minute(row, column), row[CELL]
    for age in range(CELLS - 1, -1, -1):
        spent -= row[column + (cell - age) % CELLS]
        if spent + wanted <= most:
            frees_s = (cell - age + CELLS) * CELL_S
            return Denied(limit=name, most=most, retry_after_s=max(1, frees_s - int(now_s)))
    raise AssertionError("with nothing spent there is room")
