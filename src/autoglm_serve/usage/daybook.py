"""Daybooks: what each worker notes of every request with a key, for the control plane to book.

A line is written when a request ends, by one call of the kernel, so that it is there whoever is killed then.
A daybook has one writer in all its life, and a name that no other has; it is deleted when all of it is booked
and its writer has gone on to another, or is gone.
"""

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.runtime.private_file import private
from autoglm_serve.usage.record import UsageRecord, line_of, records_in

log = logging.getLogger(__name__)

FOLDER = "usage"
_MOST_BYTES = 4 << 20
"""Of one daybook; another is begun then."""
_MOST_WAITING_BYTES = 256 << 20
"""Of all daybooks: what is beyond is not noted, so that books that cannot be written do not fill the disk."""
_READ_BYTES = 1 << 20
_SUFFIX = ".daybook"


class DaybookWriter:
    """A worker's end."""

    def __init__(self, state_dir: Path, worker_id: int) -> None:
        self._folder = state_dir / FOLDER
        self._worker_id = worker_id
        self._descriptor: int | None = None
        self._size_bytes = 0
        self._lost = 0

    def write(self, record: UsageRecord) -> None:
        """Note it, or log that it cannot be noted."""
        line = line_of(record)
        try:
            if self._descriptor is None or self._size_bytes > _MOST_BYTES:
                self._begin()
            assert self._descriptor is not None
            if os.write(self._descriptor, line) < len(line):  # the disk is full: half a line says nothing
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size_bytes += len(line)
        except OSError as problem:
            self._lost += 1
            if self._lost.bit_count() == 1:  # the first, the second, the fourth …
                log.error("%d requests are in no books: %s", self._lost, problem.strerror or problem)
            self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _begin(self) -> None:
        self.close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if sum(path.stat().st_size for path in self._folder.glob("*" + _SUFFIX)) > _MOST_WAITING_BYTES:
            raise OSError(0, f"{_MOST_WAITING_BYTES >> 20} MiB wait to be booked already")
        name = f"{time.time_ns()}-{self._worker_id}-{os.getpid()}{_SUFFIX}"
        self._descriptor = private(
            str(self._folder / name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        )
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while there is more to come
        self._size_bytes = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbooked:
    """What is new in one daybook."""

    daybook: str
    records: tuple[UsageRecord, ...]
    begin_bytes: int
    end_bytes: int
    """Where in the daybook it lies."""


class Daybooks:
    """The control plane's end: reads what is not booked yet."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    @property
    def there(self) -> bool:
        """A key was used, ever."""
        return self._folder.is_dir()

    def service(self) -> str:
        """A name that no other service has, under which its daybooks are booked. Raises OSError."""
        path = self._folder / "service"
        try:
            return path.read_text(encoding="ascii").strip() or self._named(path)
        except FileNotFoundError:
            return self._named(path)

    def _named(self, path: Path) -> str:
        name = secrets.token_hex(8)
        with open(path, "w", encoding="ascii", opener=private) as file:
            file.write(name)
        return name

    @property
    def waiting_bytes(self) -> int:
        """Of all daybooks, booked or not."""
        return sum(path.stat().st_size for path in self._folder.glob("*" + _SUFFIX))

    def unread(self, booked_bytes: dict[str, int]) -> Iterator[Unbooked]:
        """What lies behind what is booked of each daybook."""
        for path in sorted(self._folder.glob("*" + _SUFFIX)):
            begin = booked_bytes.get(path.name, 0)
            with open(path, "rb") as file:
                file.seek(begin)
                records, size_bytes = records_in(file.read(_READ_BYTES))
            if size_bytes:
                yield Unbooked(
                    daybook=path.name, records=tuple(records), begin_bytes=begin, end_bytes=begin + size_bytes
                )

    def forget(self, booked_bytes: dict[str, int]) -> list[str]:
        """Delete the daybooks that nobody writes any more and that are booked whole; their names."""
        done = [name for name, size in booked_bytes.items() if self._is_over(self._folder / name, size)]
        for name in done:
            (self._folder / name).unlink(missing_ok=True)
        return done

    def _is_over(self, path: Path, booked_bytes: int) -> bool:
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rest = file.seek(0, os.SEEK_END) - booked_bytes
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return rest <= 0 or not records_in(path.read_bytes()[booked_bytes:])[1]
