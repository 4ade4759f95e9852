"""What keys have spent of their limits: one mapped file that all workers share and that outlives them.

A key has a row, found by the hash of its id. Whoever charges or settles holds that row's lock, one of the
kernel's on a byte of the file, so that a limit is exact across workers; a process that dies lets go of it.
How many requests of a key are in flight is kept apart, a column a worker, because it dies with the worker.

What a request took in the end is written with the next one of its key, or a moment later (`flush`): until
then it counts with what it was charged.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import time
from array import array
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from autoglm_serve.keys import quota
from autoglm_serve.keys.key import Key
from autoglm_serve.keys.quota import ROW, Charge, Denied

QUOTA_FILE = "quotas"
_ROWS = 1 << 17
"""Room for every key of a table, and for a third as many that were there before."""
_ROW = struct.Struct(f"={ROW}q")
_ROW_BYTES = _ROW.size
_TRIES = 50
_MOST_IN_FLIGHT = (1 << 16) - 1


class RowBusy(Exception):
    """Another worker holds the lock of this row, and does not get on."""


class NoRow(Exception):
    """The file is full of keys."""


class Hold(NamedTuple):
    """A request that was let in, until it is settled."""

    row: int
    charged: Charge


class QuotaFile:
    """The file as one worker sees it."""

    def __init__(self, state_dir: Path, worker_id: int, workers: int) -> None:
        """Raises OSError where the disk has no room for it."""
        self._descriptor = os.open(state_dir / QUOTA_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._map = _mapped(self._descriptor, _ROWS * _ROW_BYTES)
        self._cells = memoryview(self._map).cast("q")
        self._owed: dict[int, list[tuple[Charge, int]]] = {}
        """By row: what is not settled there yet."""
        self._flights = in_flight_columns(state_dir, workers)
        self._own = worker_id * _ROWS
        self._workers = workers
        self._known: dict[str, int] = {}
        self._flights[self._own : self._own + _ROWS] = memoryview(array("H", bytes(2 * _ROWS)))

    def take(self, key: Key, tokens: int, now_s: float) -> Hold | Denied:
        """Charge one request of this key in advance. Raises RowBusy and NoRow."""
        number = self._known.get(key.id)
        if number is None:
            number = self._known[key.id] = self._row_of(key.id)
        bounded = key.limits.concurrency is not None
        self._lock(number)
        try:
            row = list(_ROW.unpack_from(self._map, number * _ROW_BYTES))
            self._pay(number, row)
            in_flight = self._in_flight(number) if bounded else 0
            charged = quota.charge(row, key.limits, now_s, tokens, in_flight)
            _ROW.pack_into(self._map, number * _ROW_BYTES, *row)
            if isinstance(charged, Denied):
                return charged
            if bounded:
                self._count(number, 1)
            return Hold(number, charged)
        finally:
            self._unlock(number)

    def settle(self, key: Key, hold: Hold, tokens: int) -> None:
        """It is over, and took so many."""
        self._owed.setdefault(hold.row, []).append((hold.charged, tokens))
        if key.limits.concurrency is not None:
            self._count(hold.row, -1)

    def flush(self) -> None:
        """Write what is not settled yet; a row that another worker holds is left for the next time."""
        for number in tuple(self._owed):
            with suppress(RowBusy):
                self._lock(number)
                row = list(_ROW.unpack_from(self._map, number * _ROW_BYTES))
                self._pay(number, row)
                _ROW.pack_into(self._map, number * _ROW_BYTES, *row)
                self._unlock(number)

    def _pay(self, number: int, row: list[int]) -> None:
        for charged, tokens in self._owed.pop(number, ()):
            quota.settle(row, charged, tokens)

    def _count(self, number: int, change: int) -> None:
        at = self._own + number
        self._flights[at] = min(_MOST_IN_FLIGHT, max(0, self._flights[at] + change))

    def _in_flight(self, number: int) -> int:
        return sum(self._flights[number + worker * _ROWS] for worker in range(self._workers))

    def _row_of(self, id: str) -> int:
        """Its row, found or made. Rows are made one after the other, under the lock behind the last row."""
        name = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), signed=True) or 1
        self._lock(_ROWS)
        try:
            for step in range(_ROWS):
                number = (name + step) % _ROWS
                owner = self._cells[number * ROW]
                if owner in (0, name):
                    self._cells[number * ROW] = name
                    return number
        finally:
            self._unlock(_ROWS)
        raise NoRow

    def _lock(self, number: int) -> None:
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                time.sleep(0)  # whoever holds it needs microseconds
                continue
            return
        raise RowBusy

    def _unlock(self, number: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)


def in_flight_columns(state_dir: Path, workers: int) -> memoryview:
    """Requests in flight, by worker and row. A file for fewer workers is made larger, never smaller: who has
    mapped it would die of that."""
    descriptor = os.open(state_dir / "in-flight", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        return memoryview(_mapped(descriptor, workers * _ROWS * 2)).cast("H")
    finally:
        os.close(descriptor)


def _mapped(descriptor: int, least_bytes: int) -> mmap.mmap:
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes < least_bytes:
        os.posix_fallocate(descriptor, 0, least_bytes)  # on a full disk a page without a block is SIGBUS
    return mmap.mmap(descriptor, max(size_bytes, least_bytes))
