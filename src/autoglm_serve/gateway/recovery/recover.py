"""Going on with a stream whose replica was lost. Pure: what was sent and asked in, what to ask elsewhere out.

Two ways. *Continue*: another replica gets the text so far as the beginning of its own answer. *Replay*: it is
asked the same again, and what it says is held against what was sent until it says more. Continuing costs one
prefill and is valid for any sampling; replaying needs an answer that can be repeated (greedy, or seeded) and
serves where a beginning cannot be handed over: tool calls, guided grammars.

What is promised is one valid answer without a repeated or missing character, not the very text that the lost
replica would have written: no engine here is batch-invariant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import orjson

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]

_THINK, _END_THINK = "<think>", "</think>"
_GUIDED = frozenset(
    {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema"}
    | {"structured_outputs", "response_format", "regex", "ebnf"}
)


class Way(StrEnum):
    """How a stream goes on."""

    CONTINUE = "continue"
    REPLAY = "replay"
    AGAIN = "again"  # nothing of the answer was sent yet: simply ask again


class Diverged(Exception):
    """A replay said something else than was sent."""


class Seam(Protocol):
    """Makes the events of a later replica part of the stream that an earlier one began."""

    def feed(self, events: bytes) -> bytes:
        """Whole events in, whole events out. Raises Diverged."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the client has of the stream."""

    identity: Json = field(default_factory=dict)
    """id, created and model of its first event, which all later ones carry too."""
    role: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    """The text of each field that grew: content, reasoning_content, and of each tool call its parts."""
    pieces: int = 0
    """Events that carried text: about one token each."""
    logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """How to go on: what to ask, and what reads the answer."""

    way: Way
    body: bytes
    splicer: "Seam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Nothing is left to ask: the answer had used up its limit."""

    events: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hopeless:
    """The stream cannot honestly go on."""

    reason: str


def read_sent(chunks: Iterable[bytes]) -> Sent:
    """The state of a stream from the events that went out."""
    identity: Json = {}
    fields: dict[str, str] = {}
    role = logprobs = False
    pieces = 0
    for chunk in chunks:
        for data in sse.data_of(chunk):
            event = sse.parsed(data) or {}
            identity = identity or {name: event[name] for name in ("id", "created", "model") if name in event}
            for choice in sse.mappings(event.get("choices")):
                grown = _growth(choice)
                role = role or "role" in sse.mapping(choice.get("delta"))
                logprobs = logprobs or bool(choice.get("logprobs"))
                pieces += bool(grown)
                for name, place, key in grown:
                    fields[name] = fields.get(name, "") + place[key]
    return Sent(identity=identity, role=role, fields=fields, pieces=pieces, logprobs=logprobs)


def resume(
    body: bytes, sent: Sent, engine: Continuation, *, may_replay: bool = True
) -> Resumption | Finish | Hopeless:
    """How to go on with the stream that answers `body`, on an engine that takes beginnings as it says."""
    asked: Json = orjson.loads(body)
    if not sent.fields:
        return Resumption(way=Way.AGAIN, body=body, splicer=Splicer(sent))
    if (asked.get("n") or 1) > 1:
        return Hopeless(reason="several answers (n > 1) were asked for at once")
    obstacle = _obstacle(asked, sent, engine)
    if obstacle is None:
        return _continue(asked, sent, engine)
    if may_replay and repeatable(asked):
        return Resumption(way=Way.REPLAY, body=body, splicer=Splicer(sent, replay=True))
    return Hopeless(reason=obstacle)


def _obstacle(asked: Json, sent: Sent, engine: Continuation) -> str | None:
    """Why the text so far cannot be handed to another replica."""
    if engine is Continuation.NONE:
        return "this engine cannot go on from a beginning"
    if sent.logprobs:
        return "log probabilities were sent, and would have a gap"
    if any(name.startswith("tool_calls") for name in sent.fields):
        return "a tool call was half sent"
    if any(_asks_for_grammar(name, asked.get(name)) for name in _GUIDED):
        return "the answer follows a grammar, which would start from its beginning"
    if asked.get("tool_choice") not in (None, "none", "auto"):
        return "a tool call was asked for"
    if "text" in sent.fields and not isinstance(asked.get("prompt"), str):
        return "the prompt is not one text"
    if "text" not in sent.fields and "messages" not in asked:
        return "the engine answered as it answers a chat, which this is not"
    return None


def _asks_for_grammar(name: str, value: object) -> bool:
    if name == "response_format":
        return isinstance(value, dict) and value.get("type") not in (None, "text")
    return value is not None


def repeatable(asked: Json) -> bool:
    """Asked again, it may be answered the same."""
    return asked.get("temperature") == 0 or asked.get("seed") is not None


def _continue(asked: Json, sent: Sent, engine: Continuation) -> Resumption | Finish:
    limits = {name: asked[name] - sent.pieces for name in _LIMITS if isinstance(asked.get(name), int)}
    if limits and min(limits.values()) <= 0:
        return Finish(events=_finished(sent))
    if isinstance(asked.get("min_tokens"), int):
        limits["min_tokens"] = max(0, asked["min_tokens"] - sent.pieces)
    if "text" in sent.fields:
        body = {**asked, **limits, "prompt": asked["prompt"] + sent.fields["text"]}
    else:
        body = {**asked, **limits, "messages": with_beginning(asked["messages"], _raw_text(sent))}
        if engine is Continuation.FLAGS:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    return Resumption(way=Way.CONTINUE, body=orjson.dumps(body), splicer=Splicer(sent))


_LIMITS = ("max_tokens", "max_completion_tokens")


def with_beginning(messages: list[Json], text: str) -> list[Json]:
    """The conversation with the answer so far, behind a beginning that the client may have given itself."""
    last = messages[-1]
    if last.get("role") == "assistant" and isinstance(last.get("content"), str):
        return [*messages[:-1], {**last, "content": last["content"] + text}]
    return [*messages, {"role": "assistant", "content": text}]


def _raw_text(sent: Sent) -> str:
    """The answer as the model wrote it: an engine that split the reasoning off gets it back in its tags."""
    reasoning = sent.fields.get("reasoning_content") or sent.fields.get("reasoning")
    content = sent.fields.get("content")
    if reasoning is None:
        return content or ""
    return _THINK + reasoning + (_END_THINK + content if content else "")


class Splicer:
    """The seam of a chat or a completion.

    One identity, one role, no empty events at the seam, usage that counts what was sent before. For a replay
    it holds back what the client has already, and raises Diverged when the replica says something else.
    """

    def __init__(self, sent: Sent, *, replay: bool = False) -> None:
        self._sent = sent
        self._owed = dict(sent.fields) if replay else {}
        self._replay = replay

    def feed(self, events: bytes) -> bytes:
        """Whole events in, whole events out. Raises Diverged."""
        return sse.rewrite(events, self._event)

    def _event(self, event: Json) -> bool:
        choices = event.get("choices")
        told = [self._choice(choice) for choice in sse.mappings(choices)]
        usage = event.get("usage")
        if choices and not any(told) and not usage:
            return False
        if isinstance(usage, dict) and not self._replay:
            _shift(usage, self._sent.pieces)
        event.update(self._sent.identity)
        return True

    def _choice(self, choice: Json) -> bool:
        """Take out what the client has; false if nothing is left to tell."""
        delta = sse.mapping(choice.get("delta"))
        if self._sent.role:
            delta.pop("role", None)
        for name, place, key in _growth(choice):
            place[key] = self._surplus(name, place[key])
        self._forget_known_calls(delta)
        if choice.get("finish_reason"):
            if any(self._owed.values()):
                raise Diverged("the answer ended before what was sent")
            return True
        return bool(_growth(choice)) or (not self._sent.role and bool(delta))

    def _forget_known_calls(self, delta: Json) -> None:
        """A tool call keeps the id under which the client saw it begin."""
        for call in sse.mappings(delta.get("tool_calls")):
            if any(name.startswith(_call_name(call)) for name in self._sent.fields):
                call.pop("id", None)
                call.pop("type", None)

    def _surplus(self, name: str, text: str) -> str:
        """What of `text` goes beyond what is owed."""
        owed = self._owed.get(name, "")
        if not owed:
            if any(self._owed.values()):
                raise Diverged(f"{name} came before its time")
            return text
        self._owed[name], surplus = held_against(owed, text, name)
        return surplus


def held_against(owed: str, text: str, name: str) -> tuple[str, str]:
    """What is owed still once `text` has come, and what of it goes beyond. Raises Diverged."""
    common = min(len(owed), len(text))
    if owed[:common] != text[:common]:
        raise Diverged(f"{name} differs from what was sent")
    return owed[common:], text[common:]


def _growth(choice: Json) -> list[tuple[str, Json, str]]:
    """What one choice of an event adds: the name of each field, and where its text stands, object and key."""
    delta = sse.mapping(choice.get("delta"))
    places = [("text", choice, "text")]
    places += [(name, delta, name) for name in ("content", "reasoning_content", "reasoning")]
    for call in sse.mappings(delta.get("tool_calls")):
        function = sse.mapping(call.get("function"))
        places += [(_call_name(call) + part, function, part) for part in function]
    return [(name, at, key) for name, at, key in places if isinstance(at.get(key), str) and at[key]]


def _call_name(call: Json) -> str:
    """How the fields of a tool call begin."""
    return f"tool_calls.{call.get('index', 0)}."


def _shift(usage: Json, pieces: int) -> None:
    """Count the beginning as written, not as read."""
    for name, change in (("prompt_tokens", -pieces), ("completion_tokens", pieces)):
        if isinstance(usage.get(name), int):
            usage[name] = max(0, usage[name] + change)


def _finished(sent: Sent) -> bytes:
    """The end of an answer that has reached its limit."""
    plain = "text" in sent.fields
    choice: Json = {"index": 0, "finish_reason": "length"}
    choice["text" if plain else "delta"] = "" if plain else {}
    kind = "text_completion" if plain else "chat.completion.chunk"
    event = {"object": kind, **sent.identity, "choices": [choice]}
    return sse.event(orjson.dumps(event)) + sse.event(sse.DONE)
