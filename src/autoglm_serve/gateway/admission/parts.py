"""The objects in what a model is given: messages, parts, tool results, documents, whatever their names. Pure.

One walk over the content of a request, without recursion and within bounds. It goes by where things are and
not by what they call themselves, since engines look at keys that a part's type does not promise.
"""

from collections.abc import Iterator
from typing import Any

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json

MAX_PARTS = 20_000
"""Objects in the content of one request: messages, their parts, and what is in those."""
MAX_DEPTH = 24
"""Of objects and arrays in it: a picture in the result of a tool in a message is 8 deep."""

_CONTAINERS = (list, dict)
_ROOTS = frozenset(
    {"messages", "input", "prompt", "system", "instructions", "documents", "query", "queries"}
    | {"text_1", "text_2", "data_1", "data_2"}
)
_NOT_CONTENT = frozenset({"arguments", "annotations", "citations", "action", "logprobs"})
"""Keys of an object in the content whose values no engine takes for parts: a tool's arguments may well hold
an address."""


TEXT_KEYS = frozenset(
    {"text", "content", "role", "name", "type", "id", "call_id", "tool_call_id", "refusal", "thinking"}
    | {"reasoning", "reasoning_content", "encrypted_content", "signature", "output", "title", "context"}
    | {"status", "format", "detail", "media_type", "filename", "description"}
)
"""Keys under which a string is text, whatever it looks like."""


class MessagePart:
    """One object in the content, and the way to it."""

    __slots__ = ("above", "depth", "key", "value")

    def __init__(self, above: "MessagePart | None", key: str | int, value: Any, depth: int) -> None:
        self.above = above
        self.key = key
        self.value = value
        """The object; of places in between, the array."""
        self.depth = depth

    @property
    def path(self) -> tuple[str | int, ...]:
        """As `splice` takes it."""
        return (*(self.above.path if self.above else ()), self.key)

    def __str__(self) -> str:
        """As an error names it: messages[0].content[1]"""
        return written(self.path)


def written(path: tuple[str | int, ...]) -> str:
    """A path as an error names it."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def parts(body: Json) -> Iterator[MessagePart]:
    """Every object in the content that is more than a text, outer ones first, in order. Raises Refusal."""
    waiting = [
        MessagePart(None, name, value, 1)
        for name, value in body.items()
        if type(value) in _CONTAINERS and name in _ROOTS
    ]
    waiting.reverse()
    seen = 0
    while waiting:
        part = waiting.pop()
        value = part.value
        if type(value) is dict:
            seen += 1
            if seen > MAX_PARTS:
                _too_many()
            yield part
            inner = [
                MessagePart(part, key, each, part.depth + 1)
                for key, each in value.items()
                if isinstance(each, dict | list) and not _is_apart(key, value)
            ]
        else:
            inner = [
                MessagePart(part, index, each, part.depth + 1)
                for index, each in enumerate(value)
                if type(each) is list or (type(each) is dict and not _is_text(each))
            ]
            seen += len(value) - len(inner)
        if inner:
            if part.depth >= MAX_DEPTH:
                _too_deep(part)
            inner.reverse()
            waiting += inner


def _is_text(item: Json) -> bool:
    """Nothing but texts, under keys that hold no more: most messages, and most parts."""
    if not item.keys() <= TEXT_KEYS or item.get("type", "text") != "text":
        return False
    for value in item.values():  # noqa: SIM110 (a generator takes twice as long, for every message)
        if type(value) is not str:
            return False
    return True


def _is_apart(key: str, inside: Json) -> bool:
    return key in _NOT_CONTENT or (key == "input" and inside.get("type") == "tool_use")


def _too_many() -> None:
    message = f"The request has more than {MAX_PARTS:,} messages and parts, the most that are read."
    raise Refusal(400, "too_many_parts", message)


def _too_deep(part: MessagePart) -> None:
    where = str(part)
    message = f"'{where[:60]}…' nests too deep: content is read {MAX_DEPTH} objects and arrays deep."
    raise Refusal(400, "too_deep", message, param=str(part.path[0]))
