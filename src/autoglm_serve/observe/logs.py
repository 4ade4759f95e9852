"""Log lines: plain for a person, JSON for a machine. Never a key, a prompt or a picture.

A line never waits: who reads standard error may have stopped reading, or be gone. What repeats is said once
and counted, and a file that is our own is begun again when it is full.
"""

import logging
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import orjson

from autoglm_serve.core.wording import speak_any
from autoglm_serve.observe.repeats import WINDOW_S, Repeats

MOST_BYTES = 32 * 1024 * 1024
"""Of one process's log, as of an engine's."""
_MOST_WAITING = 10_000
"""Lines that nobody reads; what comes then is left out and counted."""


class PlainFormatter(logging.Formatter):
    """`12:00:01 warning  what happened`"""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():<8} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and the fields that `extra={"data": {…}}` adds."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class Sink(Protocol):
    """Where whole lines go. Raises nothing."""

    def write(self, text: str) -> None: ...


class AtOnce:
    """Standard error as it is: for a verb that says a few lines and ends."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)


class OwnFile:
    """A file that this process alone writes to, as its descriptor: begun again when it is full."""

    def __init__(self, descriptor: int, most_bytes: int = MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._most_bytes = most_bytes

    def write(self, text: str) -> None:
        with suppress(OSError):  # a full disk: there is nowhere to say it
            found = os.fstat(self._descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_size + len(text) > self._most_bytes:
                os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))


class ThreadedStream:
    """Another's stream, written to by a thread: who asks for a line to be written does not wait for it."""

    def __init__(self, write: Callable[[str], object], most_waiting: int = _MOST_WAITING) -> None:
        self._write = write
        self._lines: queue.Queue[str | None] = queue.Queue(most_waiting)
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._left_out += 1

    def close(self, within_s: float) -> None:
        """Return when all is written, or nobody has read it in that time."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=within_s)
            self._thread.join(within_s)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            self._out(text)
        self._out("")

    def _out(self, text: str) -> None:
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text += f"({left_out} lines were left out here: nobody read them)\n"
        with suppress(OSError, ValueError):  # a terminal that is closed
            self._write(text)


class Lines(logging.Handler):
    """Each record as a line, warnings and worse no more often than they are worth."""

    def __init__(self, sink: Sink, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._sink = sink
        self._now_s = now_s
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        now_s = self._now_s()
        for summary in self._repeats.over(now_s):
            message = "%d more of these in %g s, the last: %s"
            told = (summary.count, WINDOW_S, summary.last)
            self._say(logging.LogRecord(record.name, logging.WARNING, "", 0, message, told, None))
        rare = record.levelno < logging.WARNING
        if rare or self._repeats.admit(f"{record.name} {record.msg}", record.getMessage(), now_s):
            self._say(record)

    def _say(self, record: logging.LogRecord) -> None:
        self._sink.write(self.format(record) + "\n")


def configure(log_format: str, level: str, sink: Sink) -> None:
    """Send every log line to `sink` in one format: plain or json."""
    speak_any(sys.stderr)
    handler = Lines(sink)
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def standard_error() -> ThreadedStream:
    """Standard error, whoever reads it."""

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return ThreadedStream(write)
