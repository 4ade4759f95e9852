"""The seam of a chat or a completion: where another replica's events join a stream that was begun. Pure.

One identity, one role, no empty events at the seam, usage that counts what was sent before.
"""

from typing import Any, Protocol

import orjson

from autoglm_serve.gateway.recovery.sent import REASONING, Sent, call_name, growth
from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]

_TOLD_AGAIN = 8
"""Characters that nobody writes twice in a row by chance."""


class Diverged(Exception):
    """What a replica says does not join to what was sent."""


class Seam(Protocol):
    """Makes the events of a later replica part of the stream that an earlier one began."""

    def feed(self, events: bytes) -> bytes:
        """Whole events in, whole events out. Raises Diverged."""
        ...


class Splicer:
    """The seam of an answer that is continued, or told again.

    For a replay it holds back what the client has already, and raises Diverged when the replica says
    something else. An engine that was asked to go on and begins anew is held to the same.
    """

    def __init__(self, sent: Sent, *, replay: bool = False, stops: tuple[str, ...] = ()) -> None:
        self._sent = sent
        self._owed = dict(sent.fields) if replay else {}
        self._replay = replay
        self._ended = False
        text = "" if replay else sent.fields.get("content") or sent.fields.get("text") or ""
        self._echo = _Echo(text)
        self._stops = _StopWatch(stops, text)

    def feed(self, events: bytes) -> bytes:
        """Whole events in, whole events out. Raises Diverged."""
        return sse.rewrite(events, self._event)

    def _event(self, event: Json) -> bool:
        choices = event.get("choices")
        told = [self._choice(choice) for choice in sse.mappings(choices)]
        usage = event.get("usage")
        if choices and not any(told) and not (usage and self._ended):
            return False
        if isinstance(usage, dict) and not self._replay:
            _shift(usage, self._sent.tokens)
        event.update(self._sent.identity)
        return True

    def _choice(self, choice: Json) -> bool:
        """Take out what the client has; false if nothing is left to tell."""
        delta = sse.mapping(choice.get("delta"))
        if self._sent.role:
            delta.pop("role", None)
        self._keep_names(delta)
        for name, place, key in growth(choice):
            text, place[key] = place[key], self._surplus(name, place[key])
            if choice.get("logprobs") and 0 < len(place[key]) < len(text):
                raise Diverged("log probabilities are of other pieces than were sent")
        self._forget_known_calls(delta)
        if choice.get("finish_reason"):
            self._end(choice, delta)
            return True
        return any(True for _ in growth(choice)) or (not self._sent.role and bool(delta))

    def _end(self, choice: Json, delta: Json) -> None:
        if any(self._owed.values()):
            raise Diverged("the answer ended before what was sent")
        self._ended = True
        held = self._echo.release()
        if held:
            place, key = (choice, "text") if "text" in self._sent.fields else (delta, "content")
            place[key] = held + (place.get(key) or "")
            if place is delta:
                choice["delta"] = delta

    def _keep_names(self, delta: Json) -> None:
        """Thoughts go on in the field in which they began."""
        known = [name for name in REASONING if name in self._sent.fields]
        for name in REASONING:
            if len(known) == 1 and name not in known and delta.get(name):
                delta.setdefault(known[0], delta.pop(name))

    def _forget_known_calls(self, delta: Json) -> None:
        """A tool call keeps the id under which the client saw it begin."""
        for call in sse.mappings(delta.get("tool_calls")):
            if any(name.startswith(call_name(call)) for name in self._sent.fields):
                call.pop("id", None)
                call.pop("type", None)

    def _surplus(self, name: str, text: str) -> str:
        """What of `text` goes beyond what is owed."""
        if name in ("content", "text"):
            self._stops.look(text)
            text = self._echo.beyond(text)
        owed = self._owed.get(name, "")
        if not owed:
            if any(self._owed.values()):
                raise Diverged(f"{name} came before its time")
            return text
        self._owed[name], surplus = held_against(owed, text, name)
        return surplus


class _Echo:
    """Finds out whether an engine goes on with a text or tells it again from its beginning."""

    def __init__(self, sent: str) -> None:
        self._sent = sent if len(sent) >= _TOLD_AGAIN else ""
        self._held = ""

    def beyond(self, text: str) -> str:
        """What of `text` is certain to be new."""
        if not self._sent:
            return text
        text, self._held = self._held + text, ""
        if len(text) < len(self._sent) and self._sent.startswith(text):
            self._held = text
            return ""
        sent, self._sent = self._sent, ""
        return text.removeprefix(sent)

    def release(self) -> str:
        """What was held back, now that no more comes."""
        held, self._held, self._sent = self._held, "", ""
        return held


class _StopWatch:
    """Looks for a stop string that began in what was sent: the engine that goes on knows nothing of that."""

    def __init__(self, stops: tuple[str, ...], sent: str) -> None:
        self._stops = stops
        self._reach = max(map(len, stops), default=0) - 1
        self._seam = sent[-self._reach :] if self._reach > 0 else ""
        self._new = ""

    def look(self, text: str) -> None:
        """Raises Diverged where `text` completes one: its beginning should never have been sent."""
        if not self._seam or len(self._new) >= self._reach:
            return
        self._new += text
        joined = self._seam + self._new[: self._reach]
        if any(_reaches_over(joined, stop, len(self._seam)) for stop in self._stops):
            raise Diverged("a stop string was half sent")


def _reaches_over(text: str, stop: str, seam: int) -> bool:
    """`stop` begins in `text` before the seam and ends behind it."""
    at = text.find(stop, max(0, seam - len(stop) + 1))
    return 0 <= at < seam


class Closing:
    """The end of an answer that has all its text, by a replica that is asked only what the prompt counts.

    Nothing of what it writes is passed on but the usage: tokens of the prompt by its count, those of the
    answer as they were sent.
    """

    def __init__(self, sent: Sent, ending: bytes = b"") -> None:
        """`ending` is the event with the finish reason, where the client has none yet."""
        self._sent = sent
        self._ending = ending

    def feed(self, events: bytes) -> bytes:
        ending, self._ending = self._ending, b""
        return ending + sse.rewrite(events, self._event)

    def _event(self, event: Json) -> bool:
        usage = event.get("usage")
        if not isinstance(usage, dict):
            return False
        prompt = usage.get("prompt_tokens")
        prompt_tokens, written = prompt if type(prompt) is int else 0, self._sent.tokens
        event["choices"] = []
        event["usage"] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": written,
            "total_tokens": prompt_tokens + written,
        }
        event.update(self._sent.identity)
        return True


def held_against(owed: str, text: str, name: str) -> tuple[str, str]:
    """What is owed still once `text` has come, and what of it goes beyond. Raises Diverged."""
    common = min(len(owed), len(text))
    if owed[:common] != text[:common]:
        raise Diverged(f"{name} differs from what was sent")
    return owed[common:], text[common:]


def limit_reached(sent: Sent) -> bytes:
    """The event that ends an answer which has reached its limit."""
    plain = "text" in sent.fields
    choice: Json = {"index": 0, "finish_reason": "length"}
    choice["text" if plain else "delta"] = "" if plain else {}
    kind = sent.kind or ("text_completion" if plain else "chat.completion.chunk")
    return sse.event(orjson.dumps({"object": kind, **sent.identity, "choices": [choice]}))


def _shift(usage: Json, tokens: int) -> None:
    """Count the beginning as written, not as read."""
    for name, change in (("prompt_tokens", -tokens), ("completion_tokens", tokens)):
        if isinstance(usage.get(name), int):
            usage[name] = max(0, usage[name] + change)
