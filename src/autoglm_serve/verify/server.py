"""Asks an OpenAI-compatible address, and keeps what it said as it said it.

Nothing is smoothed over: a stream is kept event by event, since what is wrong with it is what is looked for.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from autoglm_serve.probe.http_client import asked, root_of
from autoglm_serve.probe.upstream import RemoteModel, listed

Message: TypeAlias = dict[str, object]
Content: TypeAlias = str | list[dict[str, object]]

_MOST_BYTES = 32 << 20


class NotAnswered(Exception):
    """The address did not answer, or not with an answer. Says how, for a finding."""

    def __init__(self, said: str, *, status: int | None = None) -> None:
        super().__init__(said)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer, whole or put together from its stream."""

    text: str
    thought: str = ""
    """`reasoning` or `reasoning_content`, where the address tells it apart."""
    finish_reason: str | None
    model: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    """What is wrong with the stream itself: no [DONE], something after it, an error event."""

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage.get("prompt_tokens") or 0)

    @property
    def output_tokens(self) -> int:
        return int(self.usage.get("completion_tokens") or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedServer:
    """An address, and how long it may take to answer."""

    url: str
    key: str = "EMPTY"
    timeout_s: float = 300.0

    def served(self) -> tuple[RemoteModel, ...]:
        """The models it lists. Raises NotAnswered."""
        said = self._json("GET", "/v1/models", None)
        try:
            return listed(said)
        except (TypeError, LookupError, AttributeError) as error:
            raise NotAnswered("the list of models has none of the shape that OpenAI's has") from error

    def whole(self, body: dict[str, Any]) -> Completion:
        """The answer in one piece. Raises NotAnswered."""
        answer = self._json("POST", "/v1/chat/completions", body)
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            return Completion(
                text=str(message.get("content") or ""),
                thought=_thought(message),
                finish_reason=choice.get("finish_reason"),
                model=str(answer.get("model") or ""),
                usage=dict(answer.get("usage") or {}),
            )
        except (TypeError, LookupError, AttributeError, ValueError) as error:
            raise NotAnswered("200, but no chat completion") from error

    def stream(self, body: dict[str, Any]) -> Completion:
        """The answer in pieces, put together. Raises NotAnswered."""
        told = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._reply("POST", "/v1/chat/completions", told) as reply:
            heard = _StreamedCompletion()
            try:
                for line in reply:
                    if line.startswith(b"data:"):
                        heard.take(line[5:].strip())
            except (OSError, http.client.HTTPException) as error:
                heard.faults.append(f"it was cut off ({_words(error)})")
        return heard.answer()

    def tokens_of(self, model: str, text: str) -> int | None:
        """How many tokens a text has by the address itself; None where it does not say (vLLM does)."""
        try:
            counted = self._json(
                "POST", "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}
            )
            return int(counted["count"])
        except (NotAnswered, LookupError, TypeError, ValueError):
            return None

    def _json(self, method: str, path: str, body: object) -> dict[str, Any]:
        with self._reply(method, path, body) as reply:
            try:
                found = json.loads(reply.read(_MOST_BYTES))
            except (OSError, http.client.HTTPException) as error:
                raise NotAnswered(f"the answer was cut off ({_words(error)})") from error
            except ValueError as error:
                raise NotAnswered("200, but no JSON") from error
        if not isinstance(found, dict):
            raise NotAnswered("200, but no JSON object")
        return found

    @contextmanager
    def _reply(self, method: str, path: str, body: object) -> Iterator[http.client.HTTPResponse]:
        """The reply to one request on a connection of its own. Raises NotAnswered where it is an error."""
        url, key, timeout_s = root_of(self.url), self.key, self.timeout_s
        try:
            with asked(url, method, path, body, key=key, timeout_s=timeout_s) as reply:
                if reply.status >= 300:
                    said = reply.read(2000).decode("utf-8", "replace")
                    raise NotAnswered(f"{reply.status}: {said[:200]}", status=reply.status)
                yield reply
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotAnswered(f"nothing answers ({_words(error)})") from error


@dataclass(slots=True, kw_only=True)
class _StreamedCompletion:
    """What a stream has said so far."""

    text: str = ""
    thought: str = ""
    finish_reason: str | None = None
    model: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    done: bool = False

    def take(self, data: bytes) -> None:
        if self.done:
            self.faults.append("something follows [DONE]")
        elif data == b"[DONE]":
            self.done = True
        else:
            try:
                self._event(json.loads(data))
            except (ValueError, TypeError, LookupError, AttributeError):
                self.faults.append("an event is no chat completion chunk")

    def _event(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.faults.append(f"an error event: {str(event['error'])[:200]}")
            return
        self.model = str(event.get("model") or self.model)
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            self.text += delta.get("content") or ""
            self.thought += _thought(delta)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def answer(self) -> Completion:
        if not self.done:
            self.faults.append("it ends without [DONE]")
        if self.finish_reason is None:
            self.faults.append("no finish_reason was sent")
        return Completion(
            text=self.text, thought=self.thought, finish_reason=self.finish_reason, model=self.model,
            usage=self.usage, faults=tuple(dict.fromkeys(self.faults)),
        )  # fmt: skip


def _thought(message: dict[str, Any]) -> str:
    return str(message.get("reasoning") or message.get("reasoning_content") or "")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
