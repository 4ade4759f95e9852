"""Work in flight, requests and cost in tokens per replica: one mapped file that all gateway workers share.

Each worker writes its own row and reads those of the others, so there are no locks and no messages, and the
numbers outlive any process. A row of a worker that died is cleared by whoever starts its successor.

A row says which of its slots changed last, so that a reader looks at these alone (`Others`), however many
replicas there are. It also counts what each slot's streams bring, for who judges replicas, and how its worker
gets on, for who keeps the workers.
"""

from collections.abc import Iterable
from pathlib import Path

from autoglm_serve.core.fleet import MOST_REPLICAS
from autoglm_serve.observe.mapped import open_mapped

LOAD_FILE = "loads"
MAX_WORKERS = 128
MAX_SLOTS = MOST_REPLICAS + 256
"""Some for replicas that are being replaced."""
_REQUESTS, _TOKENS, _TAKEN, _MOVED = (column * MAX_SLOTS for column in range(4))
_RECENT = 4 * MAX_SLOTS
"""The slots that changed last, in a ring."""
_RING = 256
_CHANGES = _RECENT + _RING
"""How many changes there were."""
_BEATS = _CHANGES + 1
_ROW = _BEATS + 1
_SIZE_BYTES = MAX_WORKERS * _ROW * 8
_NOTHING = memoryview(bytes(_CHANGES * 8)).cast("q")


class NoSuchSlot(ValueError):
    """The table has no place for a replica's slot, or for a worker."""


class LoadTable:
    """The shared table as one worker (`worker_id`, its row) sees it; a reader passes none."""

    def __init__(self, path: Path, worker_id: int | None = None) -> None:
        """Raises NoSuchSlot for a worker that it has no row for."""
        self._map = open_mapped(path, _SIZE_BYTES)
        self._cells = memoryview(self._map).cast("q")
        self.worker_id = worker_id or 0
        self._start = _row(self.worker_id)
        if worker_id is not None:
            self.clear(worker_id)
        self._changes = self._cells[self._start + _CHANGES]

    def clear(self, worker_id: int) -> None:
        """Forget what a worker carried."""
        start = _row(worker_id)
        self._cells[start : start + _CHANGES] = _NOTHING
        self._cells[start + _CHANGES] += _RING + 1  # more than a ring tells: every slot is read anew
        self._cells[start + _BEATS] = 0

    def beat(self) -> None:
        """This worker lives, and its loop turns."""
        self._cells[self._start + _BEATS] += 1

    def beats(self, worker_id: int) -> int:
        return self._cells[_row(worker_id) + _BEATS]

    def take(self, slot: int, cost_tokens: int) -> None:
        """Count one request against replica `slot`, until it is given back. Raises NoSuchSlot."""
        check_slot(slot)
        cells, start = self._cells, self._start
        cells[start + slot] += 1
        cells[start + _TOKENS + slot] += cost_tokens
        cells[start + _TAKEN + slot] += 1
        self._note(slot)

    def give(self, slot: int, cost_tokens: int) -> None:
        """What was taken is done."""
        check_slot(slot)
        cells, start = self._cells, self._start
        cells[start + slot] -= 1
        cells[start + _TOKENS + slot] -= cost_tokens
        self._note(slot)

    def moved(self, slot: int) -> None:
        """A stream of this slot has brought something."""
        check_slot(slot)
        self._cells[self._start + _MOVED + slot] += 1

    def requests(self, slot: int) -> int:
        return self._sum(_REQUESTS, slot)

    def cost_tokens(self, slot: int) -> int:
        return self._sum(_TOKENS, slot)

    def taken(self, slot: int) -> int:
        """Requests that replica `slot` was ever given, by the workers that live now."""
        return self._sum(_TAKEN, slot)

    def movement(self, slot: int) -> int:
        """A number that changes while streams of replica `slot` bring something."""
        return self._sum(_MOVED, slot)

    def others(self, workers: int) -> "Others":
        """What the other ones of so many workers carry."""
        rows = tuple(_row(each) for each in range(workers) if each != self.worker_id)
        return Others(self._cells, rows)

    def close(self) -> None:
        self._cells.release()
        self._map.close()

    def _note(self, slot: int) -> None:
        """A slot has changed. The count is written last: who sees it sees what it tells of."""
        self._changes = count = self._changes + 1
        self._cells[self._start + _RECENT + count % _RING] = slot
        self._cells[self._start + _CHANGES] = count

    def _sum(self, column: int, slot: int) -> int:
        check_slot(slot)
        return sum(self._cells[column + slot :: _ROW])


class Others:
    """The rows of the other workers, read by what has changed in them."""

    def __init__(self, cells: memoryview, rows: tuple[int, ...]) -> None:
        self._cells = cells
        self._rows = rows
        self._seen = dict.fromkeys(rows, -_RING)

    def news(self, slots: Iterable[int]) -> Iterable[tuple[int, int, int]]:
        """Slot, requests and tokens of each slot that may have changed since the last call; of all `slots`
        where so much has changed that nobody knows which."""
        cells, seen = self._cells, self._seen
        for row, before in seen.items():
            if cells[row + _CHANGES] != before:
                break
        else:
            return ()
        changed = set[int]()
        for row in self._rows:
            count, before = cells[row + _CHANGES], seen[row]
            if count == before:
                continue
            seen[row] = count
            if not 0 < count - before <= _RING:
                changed.update(slots)
            else:
                changed.update(cells[row + _RECENT + turn % _RING] for turn in range(before + 1, count + 1))
        return ((slot, *self.carry(slot)) for slot in changed)

    def carry(self, slot: int) -> tuple[int, int]:
        """Requests and tokens that the others have there now."""
        cells, requests, tokens = self._cells, 0, 0
        for row in self._rows:
            requests += cells[row + _REQUESTS + slot]
            tokens += cells[row + _TOKENS + slot]
        return requests, tokens


def check_slot(slot: int) -> None:
    """Raises NoSuchSlot where the table has no place for it."""
    if not 0 <= slot < MAX_SLOTS:
        raise NoSuchSlot(f"slot {slot} is not in the table of loads, which holds 0 to {MAX_SLOTS - 1}")


def _row(worker_id: int) -> int:
    """Where the row of a worker begins."""
    if not 0 <= worker_id < MAX_WORKERS:
        raise NoSuchSlot(f"worker {worker_id} is not in the table of loads, which holds {MAX_WORKERS}")
    return worker_id * _ROW
