"""Going on with a stream whose replica was lost. Pure: what was sent and asked in, what to ask elsewhere out.

Two ways. *Continue*: another replica gets the text so far as the beginning of its own answer. *Replay*: it is
asked the same again, and what it says is held against what was sent until it says more. Continuing costs one
prefill and is valid for any sampling; replaying needs an answer that can be repeated (greedy, or seeded) and
serves where a beginning cannot be handed over: tool calls, guided grammars. What has all its text and lacks
its usage is *closed*: somebody else counts the prompt.

What is promised is one valid answer without a repeated or missing character, not the very text that the lost
replica would have written: no engine here is batch-invariant.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.gateway.admission.document import outlined, with_more, written
from autoglm_serve.gateway.recovery.seam import Closing, Seam, Splicer, limit_reached
from autoglm_serve.gateway.recovery.sent import Sent
from autoglm_serve.gateway.wire import sse
from autoglm_serve.gateway.wire.splice import Slot

Json = dict[str, Any]

_THINK, _END_THINK = "<think>", "</think>"
_GUIDED = frozenset(
    {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema"}
    | {"structured_outputs", "response_format", "regex", "ebnf"}
)
_LIMITS = ("max_tokens", "max_completion_tokens")
_OF_MANY_TOKENS = (
    *_LIMITS,
    "min_tokens",
    "n",
    "best_of",
    "echo",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
)
_LOST_BYTES = "\ufffd"


class Way(StrEnum):
    """How a stream goes on."""

    CONTINUE = "continue"
    REPLAY = "replay"
    AGAIN = "again"  # nothing of the answer was sent yet: simply ask again
    CLOSE = "close"  # the text is all there: only its usage is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """How to go on: what to ask, and what reads the answer."""

    way: Way
    body: bytes
    splicer: Seam
    model_slot: Slot | None = None
    """Where the model's name stands in the body, where somebody needs to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Nothing is left to ask: the answer had used up its limit."""

    events: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hopeless:
    """The stream cannot honestly go on."""

    reason: str


def resume(
    body: bytes, sent: Sent, engine: Continuation, *, may_replay: bool = True
) -> Resumption | Finish | Hopeless:
    """How to go on with the stream that answers `body`, on an engine that takes beginnings as it says."""
    asked = outlined(body)
    several = sent.several or _several(asked)
    if sent.ended and not several:
        return _close(asked, Closing(sent))
    if not sent.fields and not sent.others and not sent.ended:
        return Resumption(way=Way.AGAIN, body=body, splicer=Splicer(sent))
    if several:
        return Hopeless(reason="several answers were asked for at once")
    if sent.others:
        return Hopeless(reason=f"{sorted(sent.others)[0]} was sent, which nobody here can go on with")
    obstacle = _obstacle(asked, sent, engine)
    if obstacle is None:
        return _continue(asked, sent, engine)
    if may_replay and repeatable(asked):
        return Resumption(way=Way.REPLAY, body=body, splicer=Splicer(sent, replay=True))
    return Hopeless(reason=obstacle)


def _several(asked: Json) -> bool:
    prompt = asked.get("prompt")
    return (asked.get("n") or 1) > 1 or (
        isinstance(prompt, list) and len(prompt) > 1 and isinstance(prompt[0], str | list)
    )


def _obstacle(asked: Json, sent: Sent, engine: Continuation) -> str | None:
    """Why the text so far cannot be handed to another replica."""
    if engine is Continuation.NONE:
        return "this engine cannot go on from a beginning"
    if sent.logprobs:
        return "log probabilities were sent, and would have a gap"
    if any(name.startswith(("tool_calls", "function_call")) for name in sent.fields):
        return "a tool call was half sent"
    if "refusal" in sent.fields:
        return "a refusal was half sent"
    if any(text.endswith(_LOST_BYTES) for text in sent.fields.values()):
        return "half a character was sent"
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
    limits = {name: asked[name] - sent.tokens for name in _LIMITS if _is_limit(asked.get(name))}
    if limits and min(limits.values()) <= 0:
        ending = limit_reached(sent)
        if asks_for_usage(asked):
            return _close(asked, Closing(sent, ending))
        return Finish(events=ending + sse.event(sse.DONE))
    if _is_limit(asked.get("min_tokens")):
        limits["min_tokens"] = max(0, asked["min_tokens"] - sent.tokens)
    if "text" in sent.fields:
        body = {**asked, **limits, "prompt": with_more(asked["prompt"], sent.fields["text"])}
    else:
        body = {**asked, **limits, "messages": with_beginning(asked["messages"], _raw_text(sent))}
        if engine is Continuation.FLAGS:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    splicer = Splicer(sent, stops=_stops(asked))
    return Resumption(way=Way.CONTINUE, body=written(body), splicer=splicer)


def _is_limit(value: object) -> bool:
    """-1 is none."""
    return isinstance(value, int | float) and value > 0


def _stops(asked: Json) -> tuple[str, ...]:
    stop = asked.get("stop")
    return tuple(
        each for each in (stop if isinstance(stop, list) else [stop]) if each and isinstance(each, str)
    )


def asks_for_usage(asked: Json) -> bool:
    """The stream is to end with an event that counts its tokens."""
    return sse.mapping(asked.get("stream_options")).get("include_usage") is True


def _close(asked: Json, closing: Closing) -> Resumption:
    """The same prompt, and one token, which nobody sees: a limit of none is refused, or has no usage."""
    body = {name: value for name, value in asked.items() if name not in _OF_MANY_TOKENS} | {"max_tokens": 1}
    return Resumption(way=Way.CLOSE, body=written(body), splicer=closing)


def with_beginning(messages: list[Json], text: str) -> list[Json]:
    """The conversation with the answer so far, behind a beginning that the client may have given itself."""
    last = messages[-1]
    if last.get("role") == "assistant" and isinstance(last.get("content"), str):
        return [*messages[:-1], {**last, "content": with_more(last["content"], text)}]
    return [*messages, {"role": "assistant", "content": text}]


def _raw_text(sent: Sent) -> str:
    """The answer as the model wrote it: an engine that split the reasoning off gets it back in its tags."""
    reasoning = sent.fields.get("reasoning_content") or sent.fields.get("reasoning")
    content = sent.fields.get("content")
    if reasoning is None:
        return content or ""
    return _THINK + reasoning + (_END_THINK + content if content else "")
