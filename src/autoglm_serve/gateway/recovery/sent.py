"""What a client has of a stream of chat or completion chunks. Pure.

What is known to be text can be gone on with. Whatever else an engine writes has been said as well: it is
named here, so that nobody takes a stream for one that has not begun.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]
Place = tuple[str, Json, str]
"""The name of a text, and where it stands in an event: object and key."""

REASONING = ("reasoning_content", "reasoning")
"""Engines write one or the other; vLLM has changed its mind."""
_TEXTS = ("content", *REASONING, "refusal")
_FUNCTION = ("name", "arguments")
_CALL = frozenset({"index", "id", "type", "function"})
_DELTA = frozenset({"role", "tool_calls", "function_call", *_TEXTS})
_CHOICE = frozenset({"index", "delta", "text", "finish_reason", "stop_reason", "matched_stop", "logprobs"})
UNREADABLE = "an event that cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the client has of the stream."""

    identity: Json = field(default_factory=dict)
    """id, created and model of its first event, which all later ones carry too."""
    kind: str = ""
    """`object` of its events; empty where they have none."""
    role: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    """The text of each field that grew: content, reasoning_content, and of each tool call its parts."""
    others: frozenset[str] = frozenset()
    """What else was said, by name: it can be neither handed over nor held against what comes."""
    tokens: int = 0
    """At least so many, as the engine counts them or, where it does not, by the words that came."""
    logprobs: bool = False
    several: bool = False
    """Events of more than one answer came."""
    ended: bool = False
    """A finish reason was sent."""


def read_sent(chunks: Iterable[bytes]) -> Sent:
    """The state of a stream from the events that went out."""
    reader = _Reader()
    for chunk in chunks:
        for data in sse.data_of(chunk):
            if data != sse.DONE:
                reader.take(sse.parsed(data))
    return reader.sent()


class _Reader:
    def __init__(self) -> None:
        self._identity: Json = {}
        self._kind: object = ""
        self._fields: defaultdict[str, list[str]] = defaultdict(list)
        """The pieces of each."""
        self._others: set[str] = set()
        self._tokens = 0
        self._role = self._logprobs = self._several = self._ended = False

    def take(self, event: Json | None) -> None:
        if event is None:
            self._others.add(UNREADABLE)
            return
        self._identity = self._identity or {
            name: event[name] for name in ("id", "created", "model") if name in event
        }
        self._kind = self._kind or event.get("object")
        for choice in sse.mappings(event.get("choices")):
            self._take_choice(choice)
        self._tokens = max(self._tokens, _counted(event))

    def _take_choice(self, choice: Json) -> None:
        grown = list(growth(choice))
        for name, place, key in grown:
            self._fields[name].append(place[key])
        self._others.update(_others(choice))
        self._tokens += _tokens_of(choice, grown)
        self._role = self._role or "role" in sse.mapping(choice.get("delta"))
        self._logprobs = self._logprobs or bool(choice.get("logprobs"))
        self._several = self._several or choice.get("index") not in (0, None)
        self._ended = self._ended or bool(choice.get("finish_reason"))

    def sent(self) -> Sent:
        return Sent(
            identity=self._identity,
            kind=self._kind if isinstance(self._kind, str) else "",
            role=self._role,
            fields={name: "".join(pieces) for name, pieces in self._fields.items()},
            others=frozenset(self._others),
            tokens=self._tokens,
            logprobs=self._logprobs,
            several=self._several,
            ended=self._ended,
        )


def growth(choice: Json) -> Iterator[Place]:
    """The texts that one choice of an event adds."""
    delta = sse.mapping(choice.get("delta"))
    places = [("text", choice, "text")]
    places += [(name, delta, name) for name in _TEXTS]
    function = sse.mapping(delta.get("function_call"))
    places += [(f"function_call.{part}", function, part) for part in _FUNCTION]
    for call in sse.mappings(delta.get("tool_calls")):
        function = sse.mapping(call.get("function"))
        places += [(call_name(call) + part, function, part) for part in _FUNCTION]
    return ((name, at, key) for name, at, key in places if isinstance(at.get(key), str) and at[key])


def call_name(call: Json) -> str:
    """How the fields of a tool call begin."""
    return f"tool_calls.{call.get('index', 0)}."


def _others(choice: Json) -> Iterator[str]:
    """What a choice says besides its texts."""
    delta = sse.mapping(choice.get("delta"))
    yield from (name for name, value in choice.items() if name not in _CHOICE and _says(value))
    yield from (name for name, value in delta.items() if name not in _DELTA and _says(value))
    yield from (name for name in _TEXTS if not isinstance(delta.get(name), str) and _says(delta.get(name)))
    for call in sse.mappings(delta.get("tool_calls")):
        yield from (
            f"tool_calls.{name}" for name, value in call.items() if name not in _CALL and _says(value)
        )


def _says(value: object) -> bool:
    """There is a word in it, or a number in a list."""
    match value:
        case str():
            return bool(value)
        case dict():
            return any(_says(each) for each in value.values())
        case list():
            return any(_says(each) or type(each) in (int, float) for each in value)
        case _:
            return False


def _tokens_of(choice: Json, grown: list[Place]) -> int:
    """How many tokens a choice brings, at least: no token reaches over a blank into the next word."""
    probabilities = sse.mapping(choice.get("logprobs")).get("content")
    ids = choice.get("token_ids")
    listed = [len(each) for each in (probabilities, ids) if isinstance(each, list)]
    words = sum(max(1, len(place[key].split())) for _, place, key in grown)
    return max(*listed, words) if listed else words


def _counted(event: Json) -> int:
    """What the engine counts so far, where it tells in the middle (vLLM and llama.cpp do if asked)."""
    counts = (
        sse.mapping(event.get("usage")).get("completion_tokens"),
        sse.mapping(event.get("timings")).get("predicted_n"),
    )
    return max((count for count in counts if type(count) is int), default=0)
