"""What a client has been sent of one stream: the very byte objects that went out, in order.

Writing costs an append. Reading happens once, at the end, to tell a finished stream from a cut one and to
find its token counts; and when a replica dies, by whoever has to go on from here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import orjson

from autoglm_serve.gateway.wire.sse import DONE, data_of, event_ends, mappings, parsed

_REASON = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
"""Of chat and completions; some engines write "" until there is one."""
_LAST_TYPE = re.compile(
    rb'"type"\s*:\s*"(?:response\.completed|response\.incomplete|message_stop|transcript\.text\.done|speech\.audio\.done)"'
)
"""Apart from the other: a pattern that begins with a word is sought as fast as the word."""
_DONE = re.compile(rb"data:\s?\[DONE\]")
_INDEX, _FIRST_INDEX = b'"index"', b'"index":0'
_ANOTHER_CHOICE = re.compile(rb'"index"\s*:\s*[1-9]')
_MOST_TOKENS = 1 << 32  # of one request; more is no count, and would not fit into a counter for long
_USAGE = b'"usage"'
_MOST_USAGE_BYTES = 4096
_TAIL_CHUNKS = 16  # the finish, a usage event and [DONE] are among the last few chunks


class Usage(NamedTuple):
    prompt_tokens: int = 0
    completion_tokens: int = 0


NO_USAGE = Usage()


class Journal:
    """The chunks of one stream, each a run of whole SSE events."""

    __slots__ = ("_ended", "_looked", "choices", "chunks")

    def __init__(self, choices: int = 1) -> None:
        self.chunks: list[bytes] = []
        self.choices = choices
        """How many answers were asked for at once."""
        self._ended: dict[str, bool] = {}
        """By the index of an answer, whether it has its finish reason, as far as it was looked."""
        self._looked = 0
        """Chunks."""

    def look(self) -> None:
        """Note which of several answers have ended, while they come: to read all at the end takes long."""
        if self.choices > 1:
            self._look()

    def _look(self) -> None:
        for chunk in self.chunks[self._looked :]:
            _note_ends(chunk, self._ended)
        self._looked = len(self.chunks)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.chunks))

    @property
    def finished(self) -> bool:
        """Finish reasons were sent. [DONE] proves nothing: a dying vLLM sends one after its error event."""
        return self._is_finished(b"")

    def would_be_finished(self, events: bytes) -> bool:
        """`finished`, were `events` added."""
        return self._is_finished(events)

    def _is_finished(self, more: bytes) -> bool:
        """Each choice has its finish reason; only where there are several (n > 1) are all read."""
        tail = [*self.chunks[-_TAIL_CHUNKS:], more]
        if not any(_REASON.search(part) or _LAST_TYPE.search(part) for part in reversed(tail)):
            return False
        if self.choices == 1 and not _has_another_choice(tail):
            return True
        self._look()
        ended = dict(self._ended)
        _note_ends(more, ended)
        return len(ended) >= self.choices and all(ended.values())

    def usage(self) -> Usage:
        """The token counts of the last event that has any."""
        for part in self._tail():
            if _USAGE in part:
                for data in reversed(list(data_of(part))):
                    found = usage_of(data)
                    if found is not None:
                        return found
        return Usage()

    def _tail(self) -> Iterator[bytes]:
        return reversed(self.chunks[-_TAIL_CHUNKS:])


def _has_another_choice(parts: list[bytes]) -> bool:
    """Nearly every event has the index of the first one, as engines write it, and no other."""
    for part in parts:
        if part.count(_INDEX) != part.count(_FIRST_INDEX) and _ANOTHER_CHOICE.search(part):
            return True
    return False


def _note_ends(chunk: bytes, ended: dict[str, bool]) -> None:
    for data in data_of(chunk):
        for choice in mappings((parsed(data) or {}).get("choices")):
            index = str(choice.get("index", 0))
            ended[index] = ended.get(index, False) or bool(choice.get("finish_reason"))


def next_number(chunks: Sequence[bytes]) -> int:
    """What the next event is in the order of those that were sent, where they are numbered."""
    for chunk in reversed(chunks):
        for data in reversed(list(data_of(chunk))):
            number = (parsed(data) or {}).get("sequence_number")
            if isinstance(number, int):
                return number + 1
    return 0


def before_done(events: bytes) -> tuple[bytes, bool]:
    """`events` up to a [DONE], and whether there is one; the word may stand in a text too."""
    if DONE in events:
        for match in _DONE.finditer(events):
            at = match.start()
            if events.startswith(b"\n", at - 1) or not at:
                return events[:at], True
    return events, False


def before_garbage(events: bytes) -> tuple[bytes, bool]:
    """`events` up to the first whose data is neither JSON nor [DONE], and whether there is one."""
    if events.find(b"\n\n") == len(events) - 2 and events.endswith((b"}\n\n", b"]\n\n")):
        return events, False  # it is one, which may be long: it is gone over once
    ends, objects = events.count(b"\n\n"), events.count(b"}\n\n")
    if ends and (ends == objects or ends == objects + events.count(b"]\n\n")):
        return events, False  # all end as JSON and [DONE] do; parsing each would cost more than all else
    start = 0
    for end in event_ends(events):
        if not all(data == DONE or is_json(data) for data in data_of(events[start:end])):
            return events[:start], True
        start = end
    return events, False


def is_believable(event: bytes) -> bool:
    """It has data, all of it: half an event's is no JSON."""
    found = list(data_of(event))
    return bool(found) and all(data == DONE or is_json(data) for data in found)


def is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def usage_of(body: bytes) -> Usage | None:
    """The token counts of a reply or an event, if it is JSON and has them.

    Only what follows the last "usage" is parsed: a reply may have a megabyte of log probabilities before it.
    In a text the quotes are escaped, so that no text can be taken for it.
    """
    at = body.rfind(_USAGE)
    usage = _object_at(body, at + len(_USAGE)) if at >= 0 else None
    return None if usage is None else _counts(usage)


def usage_in(said: Mapping[str, object]) -> Usage:
    """The token counts of a reply that was parsed."""
    usage = said.get("usage")
    return _counts(usage) if isinstance(usage, dict) else NO_USAGE


def _counts(usage: dict[str, object]) -> Usage:
    return Usage(
        _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens")
    )


def _object_at(body: bytes, start: int) -> dict[str, object] | None:
    """The object that is the value of the name which ends at `start`; None where it is none, or large."""
    told = body[start : start + _MOST_USAGE_BYTES].lstrip(b" \r\n\t:")
    end = told.find(b"}") if told.startswith(b"{") else -1
    while end >= 0:  # there are objects in it: the first brace may not be its own
        try:
            value: dict[str, object] = orjson.loads(told[: end + 1])
        except orjson.JSONDecodeError:
            end = told.find(b"}", end + 1)
        else:
            return value
    return None


def _count(usage: dict[str, object], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if type(value) is int and 0 <= value <= _MOST_TOKENS:
            return value
    return 0
