"""Log lines for a person and for a machine."""

import json
import logging
import sys

from autoglm_serve.observe.logs import JsonFormatter, PlainFormatter


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
