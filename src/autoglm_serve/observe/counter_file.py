"""Counters that survive the process: one mapped file per gateway worker, summed by whoever asks.

Adding is an integer addition in shared memory. A file is a header (bytes used) and records of a key and a
value; keys are appended the first time they are seen and never move, so a reader needs no lock. A
successor of a worker that died opens the same file and counts on.
"""

import bisect
import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoglm_serve.observe.mapped import open_mapped

_SIZE_BYTES = 1 << 20
_WORD = 8

Key = tuple[str, ...]
"""A metric's name, then its label values in the order that `observe.metrics` declares."""


class CounterFile:
    """The counters of one process. When it is full a new key is dropped; old ones count on."""

    def __init__(self, path: Path) -> None:
        self._map = open_mapped(path, _SIZE_BYTES)
        self._words = memoryview(self._map).cast("q")
        self._index = {key: position for key, position, _ in _records(self._map)}
        self._buckets: dict[tuple[Key, int], tuple[int, int]] = {}
        """Of what is observed, where a bucket and the sum stand."""

    def add(self, key: Key, amount: int = 1) -> None:
        position = self._position(key)
        if position:
            self._words[position] += amount

    def observe(self, key: Key, value_s: float, buckets: Sequence[float]) -> None:
        """Count `value_s` in its bucket, and add it to the sum (kept in whole microseconds)."""
        bucket = bisect.bisect_left(buckets, value_s)
        known = self._buckets.get((key, bucket))
        if known is None:
            known = self._position((*key, str(bucket))), self._position((*key, "sum"))
            self._buckets[key, bucket] = known
        counted, total = known
        if counted and total:
            self._words[counted] += 1
            self._words[total] += round(value_s * 1e6)

    def _position(self, key: Key) -> int:
        """Where the value of a key stands; 0 for a new one when the file is full."""
        position = self._index.get(key)
        return self._append(key) if position is None else position

    def _append(self, key: Key) -> int:
        text = "\0".join(key).encode()
        used = self._words[0] or _WORD
        padded = -(-len(text) // _WORD) * _WORD
        if used + 2 * _WORD + padded > _SIZE_BYTES:
            return 0
        struct.pack_into(f"=q{len(text)}s", self._map, used, len(text), text)
        position = (used + _WORD + padded) // _WORD
        self._words[position] = 0
        self._words[0] = used + 2 * _WORD + padded  # last: readers see whole records only
        self._index[key] = position
        return position

    def close(self) -> None:
        self._words.release()
        self._map.close()


def read(paths: Sequence[Path]) -> dict[Key, int]:
    """The sum of the files at `paths`, key by key; a file that is not there counts nothing."""
    total: dict[Key, int] = {}
    for path in paths:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        for key, _, value in _records(data):
            total[key] = total.get(key, 0) + value
    return total


def _records(data: "bytes | mmap.mmap") -> Iterator[tuple[Key, int, int]]:
    if len(data) < _SIZE_BYTES:
        return
    (used,) = struct.unpack_from("=q", data, 0)
    at = _WORD
    while at < min(used, _SIZE_BYTES - 2 * _WORD):
        (length,) = struct.unpack_from("=q", data, at)
        padded = -(-length // _WORD) * _WORD
        if not 0 <= padded <= _SIZE_BYTES - 2 * _WORD - at:
            return  # a power cut has left half of the file
        text = bytes(data[at + _WORD : at + _WORD + length]).decode("utf-8", "replace")
        (value,) = struct.unpack_from("=q", data, at + _WORD + padded)
        yield tuple(text.split("\0")), (at + _WORD + padded) // _WORD, value
        at += 2 * _WORD + padded
