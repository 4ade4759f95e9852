"""Log lines for a person and for a machine."""

import json
import logging
import os
import re
import sys
import threading
from pathlib import Path

from autoglm_serve.observe.logs import JsonFormatter, Lines, OwnFile, PlainFormatter, ThreadedStream


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("autoglm_serve.x", logging.WARNING, "x.py", 1, message, args, None)
    made.__dict__.update(extra)
    return made


def test_a_plain_line_has_the_clock_the_level_and_the_message() -> None:
    line = PlainFormatter().format(record("replica %s is gone", "r0"))
    assert line[2] == line[5] == ":"
    assert line.endswith(" warning  replica r0 is gone")


def test_a_json_line_is_one_object_with_the_data_it_was_given() -> None:
    line = JsonFormatter().format(record("gone\nfor good", data={"replica": "r0", "path": object}))
    entry = json.loads(line)
    assert "\n" not in line
    assert entry["message"] == "gone\nfor good"
    assert (entry["level"], entry["logger"], entry["replica"]) == ("warning", "autoglm_serve.x", "r0")
    assert entry["time"].endswith("Z")


def test_an_exception_comes_with_its_traceback() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        caught = sys.exc_info()
    for formatter in (PlainFormatter(), JsonFormatter()):
        assert "ValueError: bad" in formatter.format(record("x", exc_info=caught))


class Kept:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def test_a_repeated_warning_is_said_once_and_then_counted() -> None:
    kept, now_s = Kept(), 0.0
    lines = Lines(kept, lambda: now_s)
    lines.setFormatter(PlainFormatter())
    for _ in range(100):
        lines.handle(record("replica %s did not answer", "r0"))
    assert kept.text.count("did not answer") == 1
    now_s = 11.0
    lines.handle(record("something else"))
    assert "99 more of these in 10 s, the last: replica r0 did not answer" in kept.text


def test_a_file_of_its_own_never_grows_beyond_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = OwnFile(descriptor, most_bytes=1000)
    for number in range(1000):
        sink.write(f"line {number}\n")
        assert path.stat().st_size <= 1000
    os.close(descriptor)
    assert path.read_text().endswith("line 999\n")


def test_who_logs_waits_for_nobody_that_reads() -> None:
    written: list[str] = []
    read = threading.Event()

    def write(text: str) -> None:
        read.wait()
        written.append(text)

    sink = ThreadedStream(write, most_waiting=3)
    for number in range(100):
        sink.write(f"{number}\n")
    sink.close(within_s=0.01)  # nobody reads, and it ends all the same
    read.set()
    sink.close(within_s=10)
    sink.close(within_s=10)
    left_out = re.findall(r"\((\d+) lines were left out", "".join(written))
    assert "".join(written).startswith("0\n")
    assert sum(map(int, left_out)) + len(re.findall(r"^\d+$", "".join(written), re.MULTILINE)) == 100


def test_a_terminal_that_is_closed_ends_nothing() -> None:
    told = threading.Event()

    def write(text: str) -> None:
        if text == "last":
            told.set()
        raise OSError(5, "Input/output error")

    sink = ThreadedStream(write)
    sink.write("first")
    sink.write("last")
    assert told.wait(10)
