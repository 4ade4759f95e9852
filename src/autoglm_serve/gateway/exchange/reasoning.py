"""`return_reasoning`: the text inside <think>…</think> moves from content to reasoning_content. Pure.

Only for clients that ask. Phone agents parse <think> and <answer> themselves and get content as the model
wrote it.
"""

from typing import Any

import orjson

from autoglm_serve.gateway.wire import sse

OPEN, CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Splits one choice's text, piece by piece, into reasoning and content.

    Only a <think> at the very start (after white space) opens reasoning; the first </think> closes it, and
    the line breaks around the tags go with them. A piece that could be the start of a tag is held back until
    the next one decides. The concatenated output does not depend on where the text was cut.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""

    def feed(self, text: str) -> tuple[str, str]:
        """The (reasoning, content) that `text` adds."""
        text = self._held + text
        self._held = ""
        reasoning = ""
        if self._state == "start":
            stripped = text.lstrip()
            if OPEN.startswith(stripped[: len(OPEN)]) and len(stripped) < len(OPEN):
                self._held = text
                return "", ""
            if not stripped.startswith(OPEN):
                self._state = "content"
                return "", text
            self._state, text = "after_open", stripped[len(OPEN) :]
        if self._state == "after_open":
            text = text.lstrip("\n")
            if not text:
                return "", ""
            self._state = "reasoning"
        if self._state == "reasoning":
            reasoning, text = self._until_close(text)
            if self._state == "reasoning":
                return reasoning, ""
        if self._state == "after_close":
            text = text.lstrip("\n")
            if text:
                self._state = "content"
        return reasoning, text

    def end(self) -> tuple[str, str]:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return ("", held) if self._state == "start" else (held.rstrip("\n"), "")

    def _until_close(self, text: str) -> tuple[str, str]:
        before, tag, after = text.partition(CLOSE)
        if tag:
            self._state = "after_close"
            return before.rstrip("\n"), after
        kept = len(text) - _held_tail(text)
        self._held = text[kept:]
        return text[:kept], ""


def _held_tail(text: str) -> int:
    """How many trailing characters may belong to line breaks and a closing tag still to come."""
    longest = next((n for n in range(min(len(CLOSE) - 1, len(text)), 0, -1) if text.endswith(CLOSE[:n])), 0)
    head = text[: len(text) - longest]
    return longest + len(head) - len(head.rstrip("\n"))


def split_reply(body: bytes) -> bytes:
    """A whole chat completion with reasoning moved to `reasoning_content` in every choice."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    for choice in sse.mappings(sse.mapping(reply).get("choices")):
        message = choice.get("message")
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            splitter = ThinkSplitter()
            reasoning, content = splitter.feed(message["content"])
            last_reasoning, last_content = splitter.end()
            message["reasoning_content"] = reasoning + last_reasoning
            message["content"] = content + last_content
    return orjson.dumps(reply)


class StreamSplitter:
    """The same for a stream: whole events in, whole events out."""

    def __init__(self) -> None:
        self._splitters: dict[str, ThinkSplitter] = {}

    def feed(self, events: bytes) -> bytes:
        return sse.rewrite(events, self._event)

    def _event(self, event: dict[str, Any]) -> bool:
        for choice in sse.mappings(event.get("choices")):
            self._choice(choice)
        return True

    def _choice(self, choice: dict[str, Any]) -> None:
        splitter = self._splitters.setdefault(str(choice.get("index") or 0), ThinkSplitter())
        delta = sse.mapping(choice.get("delta"))
        said = delta.get("content")
        reasoning, content = splitter.feed(said if isinstance(said, str) else "")
        if choice.get("finish_reason"):
            last_reasoning, last_content = splitter.end()
            reasoning, content = reasoning + last_reasoning, content + last_content
        if isinstance(said, str) or reasoning or content:
            delta["content"] = content
            if reasoning:
                delta["reasoning_content"] = reasoning
            choice["delta"] = delta
