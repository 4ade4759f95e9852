"""Follows a log file: new lines for whoever watches, the last ones for whoever asks.

The engine writes the file itself, so it can outlive us; here it is only read, and cut when it grows too long.
"""

import os
from collections import deque
from pathlib import Path

KEPT_LINES = 200
LONGEST_LINE_BYTES = 16 * 1024
MOST_AT_ONCE_BYTES = 1024 * 1024
CAP_BYTES = 32 * 1024 * 1024


class LogTail:
    """One log file from its beginning on."""

    def __init__(self, path: Path, *, cap_bytes: int = CAP_BYTES) -> None:
        self._path = path
        self._cap_bytes = cap_bytes
        self._offset = 0
        self._partial = b""
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def name(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._kept)

    def read_new(self) -> tuple[str, ...]:
        """The lines that were completed since the last call."""
        try:
            with self._path.open("rb") as file:
                data = self._new_bytes(file.fileno())
        except OSError:  # not there yet; or no descriptor to open it with, and it is read at the next look
            return ()
        *complete, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LONGEST_LINE_BYTES:]
        lines = tuple(line[:LONGEST_LINE_BYTES].decode("utf-8", "replace").rstrip("\r") for line in complete)
        self._kept.extend(lines)
        return lines

    def _new_bytes(self, fd: int) -> bytes:
        size = os.fstat(fd).st_size
        if size < self._offset:  # somebody cut it
            self._offset = 0
        self._offset = max(self._offset, size - MOST_AT_ONCE_BYTES)
        data = os.pread(fd, MOST_AT_ONCE_BYTES, self._offset)
        self._offset += len(data)
        if self._offset > self._cap_bytes:
            # The engine appends, so its next line goes to the new beginning.
            os.truncate(self._path, 0)
            self._offset = 0
        return data
