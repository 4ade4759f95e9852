"""What an answer has to be, and what shows that it is none. Pure.

An engine that goes down says so in the shape of an answer: a finish reason "abort", an error in a body of
200. What stands between us and an engine answers in its place: a page, a redirect, nothing. None of it ends
an answer, in one piece or streamed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]

TURNED_AWAY = 429
_NO_ANSWER = frozenset({204, 205, 408, TURNED_AWAY})
"""Nothing, nothing, too late for whoever waited, and not now."""
_GIVEN_UP = frozenset({"abort", "error"})
"""Finish reasons of vLLM and SGLang that end no answer: all that is in flight gets the first at SIGTERM."""
_BROKEN_OFF = frozenset({"failed", "cancelled"})
"""The status of a response that has no end."""
_ENDS_ELSEWHERE = frozenset({"stop_reason", "delta", "response", "incomplete_details", "status"})
_CALL = re.compile(rb'"(?:tool_calls"\s*:\s*\[\s*\{|function_call"\s*:\s*\{|type"\s*:\s*"tool_use")')
_CUT_SHORT = re.compile(rb'"(?:finish_reason|stop_reason)"\s*:\s*"(?:length|max_tokens)"')
_SIGNS = (b'"error"', b'"abort"', b'"failed"', b'"cancelled"', b'"response.failed"', b"\nerror:")
"""Of an engine that gives up. Each is found twenty times as fast as one expression finds any of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an answer has to be, by its endpoint and by what was asked."""

    path: str = ""
    """Of the API that was asked; empty where the words of who answers are ours."""
    ends_with_done: bool = False
    """Its streams end with `data: [DONE]`."""
    typed_events: bool = False
    """Its streams are events that name their type, and end with one."""
    choices: int = 1
    """How many answers were asked for at once."""
    usage: bool = False
    """A stream is to say at its end how many tokens it took."""
    tool_call: bool = False
    """It has to call a tool: that was asked for, and who cannot answers something else."""
    picture: str = ""
    """Where the request's only picture stands, for who cannot decode it."""
    field: str | None = None
    """An answer in one piece is a JSON object that has this; any object where it is empty. None: anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something is no answer."""

    reason: str
    leaving: bool = False
    """Whoever said it is going down: what is sent there now would hear the same."""


def failure_in(said: Json) -> Failure | None:
    """What an event or a whole reply says against itself; None where it may be an answer, or part of one."""
    error = said.get("error")
    if error or said.get("object") == "error" or said.get("type") in ("error", "response.failed"):
        return Failure(reason=f"the engine said {orjson.dumps(said)[:300].decode('utf-8', 'replace')}")
    reason = _given_up(said)
    return Failure(reason=f"the engine ended it with {reason!r}", leaving=True) if reason else None


def _given_up(said: Json) -> str | None:
    """The word with which an engine ends what it will not finish."""
    for choice in sse.mappings(said.get("choices")):
        end = choice.get("finish_reason")
        if isinstance(end, str) and end in _GIVEN_UP:
            return end
    return None if _ENDS_ELSEWHERE.isdisjoint(said) else _given_up_elsewhere(said)


def _given_up_elsewhere(said: Json) -> str | None:
    """The same where an API writes no choices."""
    response = said if said.get("object") == "response" else sse.mapping(said.get("response"))
    if response.get("status") in _BROKEN_OFF:
        return str(response["status"])
    ends = (
        said.get("stop_reason"),
        sse.mapping(said.get("delta")).get("stop_reason"),
        sse.mapping(response.get("incomplete_details")).get("reason"),
    )
    return next((end for end in ends if isinstance(end, str) and end in _GIVEN_UP), None)


def before_failure(events: bytes) -> tuple[bytes, Failure | None]:
    """`events` up to the first with which an engine gives a stream up, and what that says."""
    if not _is_suspicious(events):
        return events, None
    start = 0
    for end in sse.event_ends(events):
        failure = _failure_of_event(events[start:end])
        if failure is not None:
            return events[:start], failure
        start = end
    return events, None


def _is_suspicious(events: bytes) -> bool:
    for sign in _SIGNS:
        if sign in events:
            return True
    return events.startswith(b"error:")


def _failure_of_event(event: bytes) -> Failure | None:
    if event.startswith(b"error:"):  # llama.cpp before 2025
        return Failure(reason=f"the engine said {event[:300].decode('utf-8', 'replace').strip()}")
    said = [sse.parsed(data) for data in sse.data_of(event)]
    return next((failure for one in said if one and (failure := failure_in(one))), None)


def is_failed(status: int) -> bool:
    """The status is of an address that cannot answer now, whatever it was asked."""
    return status in _NO_ANSWER or not (200 <= status < 300 or 400 <= status < 500)


def failure_of_whole(
    body: bytes, expected: Expected, *, finish_needed: bool = False
) -> tuple[Failure | None, Json]:
    """Why a reply of 200 in one piece is no answer, and what it says. `finish_needed` where it is known that
    who answers gives finish reasons."""
    if expected.field is None:
        return None, {}
    said = sse.parsed(body)
    if said is None:
        what = "nothing" if not body.strip() else "what is no JSON object"
        return Failure(reason=f"the address answered with {what}"), {}
    failure = failure_in(said)
    if failure is None and expected.field and expected.field not in said:
        failure = Failure(reason=f"the address answered without {expected.field!r}")
    if failure is None and expected.ends_with_done and finish_needed and _is_unfinished(said):
        failure = Failure(reason="the answer does not say how it ended")
    return failure, said


def _is_unfinished(said: Json) -> bool:
    return bool(said.get("choices")) and not says_how_it_ended(said)


def says_how_it_ended(said: Mapping[str, object]) -> bool:
    """Its writer gives finish reasons."""
    for choice in sse.mappings(said.get("choices")):  # noqa: SIM110 (a generator takes twice as long, for every answer)
        if choice.get("finish_reason"):
            return True
    return False


def lacks_call(parts: Iterable[bytes], expected: Expected) -> bool:
    """A tool was to be called, and what was answered calls none, though no limit cut it short."""
    if not expected.tool_call:
        return False
    return not any(_CALL.search(part) or _CUT_SHORT.search(part) for part in parts)
