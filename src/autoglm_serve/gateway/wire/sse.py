"""Server-sent events as bytes: where one ends, and what is in it. Pure."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

DONE = b"[DONE]"
_END = re.compile(rb"\r?\n\r?\n")


def whole_events(data: bytes) -> int:
    """How many leading bytes of `data` are complete events, blank line included.

    Agrees with reading line by line for both line endings that engines use, \\n and \\r\\n, at every cut.
    """
    if data.endswith(b"\n\n"):
        return len(data)
    newline, crlf = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(newline + 2 if newline >= 0 else 0, crlf + 4 if crlf >= 0 else 0)


UNUSUAL = (b"\xff", b"\n\n\n")
"""No event begins like this, and none whose first line break is the last but one byte ends so."""
_BEGINNING = len(b'data: {"id"')
_LARGEST_USUAL = 64 * 1024
_UNFINISHED = re.compile(rb'"finish_reason":\s?null')


def usual_frame(events: bytes) -> tuple[bytes, bytes] | None:
    """How the like of `events` begin and end, if it is one event with one JSON object that ends no answer.

    What is in between is what the model writes: the frame holds the finish reason that is not yet there, on
    whichever side of it the engine writes it, so that no event has this frame that says how an answer ends.
    """
    if events.find(b"\n") != len(events) - 2 or not events.startswith(b"data: {") or events[-3:] != b"}\n\n":
        return None
    mark = _UNFINISHED.search(events) if len(events) <= _LARGEST_USUAL else None
    if mark is None:
        return None
    if events.find(b'"delta"', mark.end()) < 0 and events.find(b'"text"', mark.end()) < 0:
        return events[:_BEGINNING], events[mark.start() :]
    return events[: mark.end()], b"}\n\n"


def data_of(events: bytes) -> Iterator[bytes]:
    """The data field of each event in `events` (whole events only); what has none is passed over."""
    for event in events.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if any(lines):
            yield b"\n".join(lines)


def dumps(value: dict[str, Any]) -> bytes:
    """An object as the data of an event."""
    return orjson.dumps(value)


def event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def rewrite(events: bytes, change: Callable[[dict[str, Any]], bool]) -> bytes:
    """`events` with every JSON object as `change` leaves it, which may say False to leave the event out.

    [DONE] and what is no JSON object pass as they are; comments are dropped.
    """
    return b"".join(_rewritten(data, change) for data in data_of(events))


def _rewritten(data: bytes, change: Callable[[dict[str, Any]], bool]) -> bytes:
    value = parsed(data)
    if value is None:
        return event(data)
    return event(orjson.dumps(value)) if change(value) else b""


def parsed(data: bytes) -> dict[str, Any] | None:
    """The JSON object in an event's data; None for [DONE] and for anything else."""
    if data == DONE:
        return None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def mapping(value: object) -> dict[str, Any]:
    """What should be an object. What an engine says in another shape says nothing."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The objects in what should be a list of them."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def event_ends(events: bytes) -> Iterator[int]:
    """Where each of the whole events in `events` ends."""
    return (match.end() for match in _END.finditer(events))
