"""Going on with a stream of typed events, those of /v1/responses and /v1/messages. Pure.

Such a stream is a frame of marks (an item begins, a part ends) around texts that grow by deltas, and its last
marks repeat the whole text. So it is told again: the other replica's marks are held against those that were
sent, its ids replaced by the ids that the client knows, and its deltas held back until they say more.

Two ways, as in `recover`. *Replay* asks the same again; it needs an answer that can be repeated. *Continue*
hands the text so far over as the last message of the assistant; /v1/messages can say that, /v1/responses
cannot, and only engines that go on from such a message by themselves take it there.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.gateway.admission.document import outlined, written
from autoglm_serve.gateway.recovery.recover import (
    Finish,
    Hopeless,
    Resumption,
    Way,
    repeatable,
    with_beginning,
)
from autoglm_serve.gateway.recovery.seam import Diverged, held_against
from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]
Key = tuple[Any, ...]

MESSAGES = "/v1/messages"
_IDS = frozenset({"id", "item_id", "response_id", "call_id"})
_PLACE = ("item_id", "output_index", "content_index", "summary_index", "index")
_PASSED_OVER = frozenset({"ping", "response.in_progress", "response.queued"})
"""What says nothing of the answer; a replica may send it, or more of it."""
_BLOCK_TEXTS = ("text", "thinking", "partial_json", "signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the client has of the stream."""

    marks: tuple[Json, ...] = ()
    texts: Mapping[Key, str] = field(default_factory=dict)
    """By the kind of the delta and its place."""
    tokens: int = 0
    """At least so many, by the words of the deltas."""
    last_number: int | None = None
    """The sequence number of the last event, where they have one."""


def read_told(chunks: Iterable[bytes]) -> Told:
    """The state of a stream from the events that went out."""
    marks: list[Json] = []
    texts: defaultdict[Key, list[str]] = defaultdict(list)
    tokens, last = 0, None
    for chunk in chunks:
        for data in sse.data_of(chunk):
            event = sse.parsed(data) or {}
            number = event.get("sequence_number")
            last = number if isinstance(number, int) else last
            grown = _growth(event)
            if grown is not None:
                key, text = grown
                texts[key].append(text)
                tokens += max(1, len(text.split()))
            elif _is_mark(event):
                marks.append(event)
    whole = {key: "".join(pieces) for key, pieces in texts.items()}
    return Told(marks=tuple(marks), texts=whole, tokens=tokens, last_number=last)


def resume(
    path: str, body: bytes, told: Told, engine: Continuation, *, may_replay: bool = True
) -> Resumption | Finish | Hopeless:
    """How to go on with the stream that answers `body`."""
    asked = outlined(body)
    if told.marks and told.marks[-1]["type"] == "message_delta":
        return Finish(events=_event({"type": "message_stop"}))  # how it ended is told: that it has is not
    if not told.texts:
        return Resumption(way=Way.AGAIN, body=body, splicer=Retelling(told))
    if path == MESSAGES and engine is Continuation.PREFILL and _only_text(asked, told):
        return _continue(asked, told)
    if may_replay and repeatable(asked):
        return Resumption(way=Way.REPLAY, body=body, splicer=Retelling(told))
    if not may_replay:
        return Hopeless(reason="asked again, the model said something else")
    return Hopeless(reason=f"{path} takes no beginning of an answer, and this one was sampled")


def _only_text(asked: Json, told: Told) -> bool:
    """All that was sent is one text that has not ended."""
    kinds = [mark["type"] for mark in told.marks]
    tools = asked.get("tool_choice")
    return (
        kinds == ["message_start", "content_block_start"]
        and [key[-1] for key in told.texts] == ["text"]
        and isinstance(asked.get("max_tokens"), int)
        and (tools if isinstance(tools, str) else sse.mapping(tools).get("type")) in (None, "auto", "none")
    )


def _continue(asked: Json, told: Told) -> Resumption | Finish:
    left = asked["max_tokens"] - told.tokens
    if left <= 0:
        return Finish(events=_finished(told))
    (text,) = told.texts.values()
    body = {**asked, "max_tokens": left, "messages": with_beginning(asked["messages"], text)}
    return Resumption(way=Way.CONTINUE, body=written(body), splicer=Retelling(told, owes_text=False))


def _finished(told: Told) -> bytes:
    """The end of a message that has reached its limit."""
    index = told.marks[-1].get("index", 0)
    delta = {"stop_reason": "max_tokens", "stop_sequence": None}
    usage = {"output_tokens": told.tokens}
    ends: tuple[Json, ...] = (
        {"type": "content_block_stop", "index": index},
        {"type": "message_delta", "delta": delta, "usage": usage},
        {"type": "message_stop"},
    )
    return b"".join(map(_event, ends))


class Retelling:
    """Makes the events of a later replica part of the stream that an earlier one began (`recover.Seam`)."""

    def __init__(self, told: Told, *, owes_text: bool = True) -> None:
        """`owes_text`: it begins at the beginning, so that all that was sent comes once more."""
        self._marks = deque(told.marks)
        self._texts = dict(told.texts) if owes_text else {}
        self._written_before = 0 if owes_text else told.tokens
        self._ids: dict[str, str] = {}
        """By the ids of the later replica, those that the client knows."""
        self._number = told.last_number

    def feed(self, events: bytes) -> bytes:
        """Whole events in, whole events out. Raises Diverged."""
        return b"".join(self._told(sse.parsed(data)) for data in sse.data_of(events))

    def _told(self, event: Json | None) -> bytes:
        if event is None or "type" not in event:
            return b""
        _translate(event, self._ids)
        grown = _growth(event)
        if grown is not None:
            surplus = self._surplus(*grown)
            if not surplus:
                return b""
            _put(event, surplus)
        elif not _is_mark(event):
            if self._owes:
                return b""
        elif self._marks:
            self._match(self._marks.popleft(), event)
            return b""
        elif self._owes:
            raise Diverged(f"{event['type']} came before all that was sent")
        return self._numbered(event)

    @property
    def _owes(self) -> bool:
        return bool(self._marks) or any(self._texts.values())

    def _surplus(self, key: Key, text: str) -> str:
        """What of `text` goes beyond what was sent."""
        self._texts[key], surplus = held_against(self._texts.get(key, ""), text, key[0])
        if surplus and self._owes:
            raise Diverged(f"{key[0]} came before its time")
        return surplus

    def _match(self, sent: Json, event: Json) -> None:
        """A mark that the client has. Its ids stand for those of this replica from now on."""
        if sent["type"] != event["type"]:
            raise Diverged(f"{event['type']} came where {sent['type']} was sent")
        if any(sent.get(name) != event.get(name) for name in ("output_index", "content_index", "index")):
            raise Diverged(f"{event['type']} came at another place")
        if _said_whole(sent) != _said_whole(event):
            raise Diverged(f"{event['type']} differs from what was sent")
        self._ids.update(_pairs(event, sent))

    def _numbered(self, event: Json) -> bytes:
        usage = event.get("usage")
        if self._written_before and isinstance(usage, dict) and isinstance(usage.get("output_tokens"), int):
            usage["output_tokens"] += self._written_before
        if self._number is not None and "sequence_number" in event:
            self._number += 1
            event["sequence_number"] = self._number
        return _event(event)


def _is_mark(event: Json) -> bool:
    return isinstance(event.get("type"), str) and event["type"] not in _PASSED_OVER


def _said_whole(mark: Json) -> list[object]:
    """What a mark says of the answer by itself: texts, deltas of a kind that is not known, what begins."""
    said = [mark.get(name) for name in ("text", "arguments", "delta")]
    for name in ("item", "part", "content_block"):
        begun = sse.mapping(mark.get(name))
        said += [begun.get(part) for part in ("type", "name", "text", "arguments")]
    return [each or None for each in said]


def _growth(event: Json) -> tuple[Key, str] | None:
    """(Key, text) of a delta; None for any other event."""
    kind, delta = event.get("type"), event.get("delta")
    place = tuple(str(event.get(name)) for name in _PLACE)
    if isinstance(kind, str) and isinstance(delta, str):
        return (kind, *place, "delta"), delta
    if kind == "content_block_delta" and isinstance(delta, dict):
        for name in _BLOCK_TEXTS:
            if isinstance(delta.get(name), str):
                return (kind, *place, name), delta[name]
    return None


def _put(event: Json, text: str) -> None:
    """Set the text that `_growth` found."""
    if isinstance(event["delta"], str):
        event["delta"] = text
        return
    name = next(name for name in _BLOCK_TEXTS if isinstance(event["delta"].get(name), str))
    event["delta"][name] = text


def _pairs(new: object, old: object) -> dict[str, str]:
    """Ids at the same places of two events."""
    found: dict[str, str] = {}
    if isinstance(new, dict) and isinstance(old, dict):
        for name, value in new.items():
            if name in _IDS and isinstance(value, str) and isinstance(old.get(name), str):
                found[value] = old[name]
            else:
                found.update(_pairs(value, old.get(name)))
    elif isinstance(new, list) and isinstance(old, list):
        for one, other in zip(new, old, strict=False):
            found.update(_pairs(one, other))
    return found


def _translate(value: object, ids: Mapping[str, str]) -> None:
    """Replace ids wherever they stand."""
    if isinstance(value, list):
        for each in value:
            _translate(each, ids)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in _IDS and isinstance(each, str):
                value[name] = ids.get(each, each)
            else:
                _translate(each, ids)


def _event(value: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), orjson.dumps(value))
