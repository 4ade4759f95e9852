"""Answers of OpenAI's API as Ollama tells them: lines of JSON for a stream, else one object."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from autoglm_serve.gateway.ollama.question import Form, Translation
from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]

_NS = 1_000_000_000
_REASONS = {"length": "length"}
"""Ollama knows one other than stop; it is stop too where a tool is called."""


def now_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(slots=True, kw_only=True)
class Telling:
    """One answer on its way."""

    question: Translation
    begun_s: float
    clock: Callable[[], float]
    wall: Callable[[], datetime]
    ended: bool = False
    """The last line has been said."""
    _first_s: float | None = None
    _reason: str = "stop"
    _usage: Json = field(default_factory=dict)
    _calls: dict[int, Json] = field(default_factory=dict)

    def lines(self, events: bytes) -> bytes:
        """What these whole events come to; a comment, which says that the service lives, to an empty one."""
        said = [line for data in sse.data_of(events) for line in self._of(data)]
        if not said and not self.ended and events.startswith(b":"):
            return self._piece({})
        return b"".join(said)

    def end(self) -> bytes:
        """The last line, unless it has been said."""
        return b"".join(self._last())

    def whole(self, body: bytes) -> bytes:
        """An answer in one piece."""
        answer = sse.parsed(body) or {}
        if self.question.form in (Form.EMBED, Form.EMBEDDING):
            return orjson.dumps(self._embedded(answer))
        choice = next(iter(sse.mappings(answer.get("choices"))), {})
        message = sse.mapping(choice.get("message"))
        self._take_usage(answer)
        self._reason = choice.get("finish_reason") or "stop"
        said: Json = {"content": message.get("content") or choice.get("text") or ""}
        thinking = message.get("reasoning_content") or message.get("reasoning")
        if thinking:
            said["thinking"] = thinking
        calls = [_call(call) for call in sse.mappings(message.get("tool_calls"))]
        if calls:
            said["tool_calls"] = calls
        return orjson.dumps(self._line(said, done=True) | _probabilities(choice))

    def loaded(self) -> bytes:
        """Nothing was asked; the model is there."""
        return orjson.dumps(self._line({}, done=True) | {"done_reason": "load"})

    def _of(self, data: bytes) -> list[bytes]:
        if data == sse.DONE:
            return self._last()
        event = sse.parsed(data) or {}
        if self.ended:
            return []
        if event.get("error"):
            self.ended = True
            return [error_line(sse.mapping(event["error"]).get("message") or str(event["error"]))]
        self._take_usage(event)
        choice = next(iter(sse.mappings(event.get("choices"))), {})
        if choice.get("finish_reason"):
            self._reason = choice["finish_reason"]
        delta = sse.mapping(choice.get("delta"))
        for call in sse.mappings(delta.get("tool_calls")):
            self._gather(call)
        said: Json = {}
        if text := delta.get("content") or choice.get("text"):
            said["content"] = text
        if thinking := delta.get("reasoning_content") or delta.get("reasoning"):
            said["thinking"] = thinking
        return [self._piece(said, _probabilities(choice))] if said else []

    def _last(self) -> list[bytes]:
        if self.ended:
            return []
        calls = [_call(call) for _, call in sorted(self._calls.items())]
        told = [self._piece({"tool_calls": calls})] if calls else []
        self.ended = True
        return [*told, orjson.dumps(self._line({}, done=True)) + b"\n"]

    def _piece(self, said: Json, more: Json | None = None) -> bytes:
        if said and self._first_s is None:
            self._first_s = self.clock()
        return orjson.dumps(self._line(said, done=False) | (more or {})) + b"\n"

    def _line(self, said: Json, *, done: bool) -> Json:
        line: Json = {"model": self.question.model, "created_at": now_text(self.wall())}
        if self.question.form is Form.CHAT:
            line["message"] = {"role": "assistant", "content": "", **said}
        else:
            line["response"] = said.get("content", "")
            line |= {name: said[name] for name in ("thinking", "tool_calls") if name in said}
        line["done"] = done
        return line | self._account() if done else line

    def _account(self) -> Json:
        """How it ended and what it took. No time is 0: clients divide by them."""
        ended_s = self.clock()
        first_s = self._first_s if self._first_s is not None else self.begun_s
        return {
            "done_reason": _REASONS.get(self._reason, "stop"),
            "total_duration": _ns(ended_s - self.begun_s),
            "load_duration": 1,
            "prompt_eval_count": self._usage.get("prompt_tokens") or 0,
            "prompt_eval_duration": _ns(first_s - self.begun_s),
            "eval_count": self._usage.get("completion_tokens") or 0,
            "eval_duration": _ns(ended_s - first_s),
        }

    def _take_usage(self, said: Json) -> None:
        self._usage = sse.mapping(said.get("usage")) or self._usage

    def _gather(self, call: Json) -> None:
        """Tool calls come in pieces; Ollama tells them whole."""
        index = call.get("index")
        whole = self._calls.setdefault(
            index if isinstance(index, int) else 0, {"function": {"arguments": ""}}
        )
        function = sse.mapping(call.get("function"))
        whole["id"] = call.get("id") or whole.get("id")
        whole["function"]["name"] = function.get("name") or whole["function"].get("name")
        whole["function"]["arguments"] += function.get("arguments") or ""

    def _embedded(self, answer: Json) -> Json:
        vectors = [each.get("embedding") for each in sse.mappings(answer.get("data"))]
        if self.question.form is Form.EMBEDDING:
            return {"embedding": vectors[0] if vectors else []}
        self._take_usage(answer)
        return {
            "model": self.question.model,
            "embeddings": vectors,
            "total_duration": _ns(self.clock() - self.begun_s),
            "load_duration": 1,
            "prompt_eval_count": self._usage.get("prompt_tokens") or 0,
        }


def error_line(message: str) -> bytes:
    return orjson.dumps({"error": message}) + b"\n"


def _call(call: Json) -> Json:
    """Its arguments as an object; what a model wrote that is none, as it wrote it."""
    function = sse.mapping(call.get("function"))
    text = function.get("arguments") or "{}"
    try:
        arguments = orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        arguments = {"": text}
    made: Json = {"function": {"name": function.get("name"), "arguments": arguments}}
    return {"id": call["id"], **made} if call.get("id") else made


def _probabilities(choice: Json) -> Json:
    said = sse.mappings(sse.mapping(choice.get("logprobs")).get("content"))
    return {"logprobs": said} if said else {}


def _ns(seconds: float) -> int:
    return max(1, int(seconds * _NS))
