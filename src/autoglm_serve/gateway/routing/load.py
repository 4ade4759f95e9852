"""Work in flight, requests and cost in tokens per replica: one mapped file that all gateway workers share.

Each worker writes its own row and reads every row, so there are no locks and no messages, and the numbers
outlive any process. A row of a worker that died is cleared by whoever starts its successor. Behind the rows
each worker has a number that grows while it gets on, for who keeps the workers.
"""

from pathlib import Path

from autoglm_serve.observe.mapped import open_mapped

MAX_WORKERS = 128
MAX_SLOTS = 256
_ROW = 3 * MAX_SLOTS  # requests, then cost, then requests so far
_BEATS = MAX_WORKERS * _ROW  # behind all rows: a number of each worker that grows while it gets on
_SIZE_BYTES = (_BEATS + MAX_WORKERS) * 8
_EMPTY_ROW = memoryview(bytes(_ROW * 8)).cast("q")


class LoadTable:
    """The shared table as one worker (`row`) sees it; a reader passes no row."""

    def __init__(self, path: Path, row: int | None = None) -> None:
        self._map = open_mapped(path, _SIZE_BYTES)
        self._cells = memoryview(self._map).cast("q")
        self._row = row or 0
        self._start = self._row * _ROW
        if row is not None:
            self.clear(row)

    def clear(self, row: int) -> None:
        """Forget what worker `row` carried."""
        self._cells[row * _ROW : (row + 1) * _ROW] = _EMPTY_ROW

    def beat(self) -> None:
        """This worker lives, and its loop turns."""
        self._cells[_BEATS + self._row] += 1

    def beats(self, row: int) -> int:
        return self._cells[_BEATS + row]

    def take(self, slot: int, cost: int) -> "Burden":
        """Count one request of `cost` tokens against replica `slot` until the burden is put down."""
        self._cells[self._start + slot] += 1
        self._cells[self._start + MAX_SLOTS + slot] += cost
        self._cells[self._start + 2 * MAX_SLOTS + slot] += 1
        return Burden(self, slot, cost)

    def give(self, slot: int, cost: int) -> None:
        self._cells[self._start + slot] -= 1
        self._cells[self._start + MAX_SLOTS + slot] -= cost

    def requests(self, slot: int, workers: int = MAX_WORKERS) -> int:
        return sum(self._cells[row * _ROW + slot] for row in range(workers))

    def cost_tokens(self, slot: int, workers: int = MAX_WORKERS) -> int:
        return sum(self._cells[row * _ROW + MAX_SLOTS + slot] for row in range(workers))

    def taken(self, slot: int, workers: int = MAX_WORKERS) -> int:
        """Requests that replica `slot` was ever given, by the workers that live now."""
        return sum(self._cells[row * _ROW + 2 * MAX_SLOTS + slot] for row in range(workers))

    def close(self) -> None:
        self._cells.release()
        self._map.close()


class Burden:
    """One request's share of the table; given back exactly once, however the request ends."""

    __slots__ = ("_slot", "_table", "cost_tokens")

    def __init__(self, table: LoadTable, slot: int, cost_tokens: int) -> None:
        self._table: LoadTable | None = table
        self._slot = slot
        self.cost_tokens = cost_tokens

    def put_down(self) -> None:
        """Give it back; a second time gives nothing."""
        if self._table is not None:
            self._table.give(self._slot, self.cost_tokens)
            self._table = None
