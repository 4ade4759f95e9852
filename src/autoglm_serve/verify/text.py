"""What holds of any answer: its name, its end, its usage; and that a stream says what a whole one does."""

import re

from .finding import failed, skipped, warned
from .golden import golden_screens
from .served_model import ServedModel
from .server import Completion, NotAnswered

_SPECIAL = re.compile(
    r"<\|[a-z_]+\|>|</s>|<eos>|<pad>|\[(?:EOS|BOS|PAD|gMASK)\]|<sop>|<eop>|<(?:start|end)_of_turn>"
)
_WORD = " the"
_FEW, _SOME, _MANY = 40, 160, 280
_MOST_A_WORD, _LEAST_A_WORD = 1.6, 0.7
"""Tokens for each of the commonest words of English: one, in almost any vocabulary."""
_SHORT_TOKENS = 8
_LONGEST_SENT_TOKENS = 40_000


def name(subject: ServedModel) -> str:
    """The answer is of the model that was asked."""
    listed = {one.name for one in subject.served}
    if subject.name not in listed:
        raise failed(
            f"{subject.name} is not among the models that are listed: {', '.join(sorted(listed)) or 'none'}.",
            "Ask for one of these, or give the service that name (--name, vLLM: --served-model-name).",
        )
    answered = {answer.model for _, answer in subject.golden}
    if answered != {subject.name}:
        other = ", ".join(sorted(answered - {subject.name})) or "no name"
        raise failed(
            f"Answers to {subject.name} are signed by {other}.",
            "Another model answers than the one that was asked: look at what stands behind the address.",
        )
    return f"{subject.name} is listed and signs its answers"


def stream(subject: ServedModel) -> str:
    """A stream says what the whole answer says, and ends as one should."""
    whole, streamed = subject.golden[0][1], subject.golden_streamed
    if streamed.faults:
        raise failed(f"The stream is broken: {'; '.join(streamed.faults)}.", _STREAM)
    if streamed.text == whole.text and streamed.thought == whole.thought:
        return f"the same {len(whole.text)} characters in pieces and whole; [DONE] last"
    if streamed.text and whole.text.startswith(streamed.text):
        lost = len(whole.text) - len(streamed.text)
        raise failed(f"The stream lacks the last {lost} characters of the whole answer.", _STREAM)
    if _has_doubled(whole.text, streamed.text):
        raise failed(f"The stream says a piece twice: {streamed.text[:120]!r}.", _STREAM)
    again = subject.whole(golden_screens()[0].content())
    if again.text != whole.text:
        raise warned(
            "The same question at temperature 0 has other words each time, so a stream can't be held "
            "against a whole answer.",
            "Ask while nothing else runs; where it stays so, sampling is not what was asked for.",
        )
    raise failed(f"Streamed {streamed.text[:120]!r}, whole {whole.text[:120]!r}.", _STREAM)


_STREAM = "Look at what lies between the engine and this address: a proxy, a buffer, a router that retries."


def _has_doubled(whole: str, streamed: str) -> bool:
    """Whether one text is the other with some piece of it said twice."""
    extra = len(streamed) - len(whole)
    if extra <= 0:
        return False
    return any(
        streamed[:at] + streamed[at + extra :] == whole
        and streamed[at : at + extra] == streamed[at - extra : at]
        for at in range(extra, len(streamed) - extra + 1)
    )


def parts(subject: ServedModel) -> str:
    """A text and a list with that text in it are the same prompt."""
    text = "Hello, who are you?"
    plain = subject.whole(text, max_tokens=32)
    listed = subject.whole([{"type": "text", "text": text}], max_tokens=32)
    more = listed.prompt_tokens - plain.prompt_tokens
    if abs(more) > 2:
        raise failed(
            f"A text in a list of parts makes a prompt of {listed.prompt_tokens} tokens, plain "
            f"{plain.prompt_tokens}: the chat template prints the list.",
            "Use a chat template that walks over parts (vLLM: --chat-template-content-format openai).",
        )
    if listed.text != plain.text and more:
        raise warned(
            f"A text in a list of parts is {more} tokens longer than plain, and answered with other words.",
            "Look at the chat template.",
        )
    return f"{plain.prompt_tokens} tokens either way"


def stop_tokens(subject: ServedModel) -> str:
    """An answer ends by itself, says no special token, and stops where it was asked to."""
    for _, answer in subject.golden:
        if found := _SPECIAL.search(answer.text):
            raise failed(
                f"An answer has the special token {found.group()} in it: {answer.text[-120:]!r}.", _STOP
            )
        if answer.finish_reason != "stop":
            raise failed(
                f"An answer did not end by itself ({answer.finish_reason}, {answer.output_tokens} tokens): "
                f"…{answer.text[-80:]!r}.",
                _STOP,
            )
        if len(re.findall(r"\b(?:do|finish)\((?:action|message)=", answer.text)) > 1:
            raise failed(f"An answer goes on after its action: {answer.text[-120:]!r}.", _STOP)
    return f"{len(subject.golden)} answers end by themselves; " + _stops_where_asked(subject)


_STOP = "Check the model's generation_config.json (eos_token_id) and that the engine reads it."


def _stops_where_asked(subject: ServedModel) -> str:
    screen, answer = subject.golden[0]
    mark = answer.text[len(answer.text) // 2 :][:4]
    if len(mark) < 4:
        return "too short to try `stop`"
    wanted = answer.text.partition(mark)[0]
    cut = subject.whole(screen.content(), stop=[mark])
    if cut.text == answer.text:
        raise failed(
            f"`stop` is not heeded: {mark!r} is in the answer.", "Look at what drops the field `stop`."
        )
    if mark in cut.text:
        raise failed(
            f"`stop` comes too late: {cut.text[-60:]!r} has {mark!r} in it.", "Report it to the engine."
        )
    return "`stop` is heeded" if cut.text.rstrip() == wanted.rstrip() else "`stop` ends an answer"


def thinking(subject: ServedModel) -> str:
    """What the model thinks is told apart or marked, and can be switched off where the model can."""
    for _, answer in subject.golden:
        _leaks(answer)
    screen, before = subject.golden[0]
    off = subject.whole(screen.content(), chat_template_kwargs={"enable_thinking": False})
    _leaks(off)
    if off.text == before.text and off.thought == before.thought:
        return "marked as such; this model has no switch for it" if _thinks(before) else "none"
    if _thinks(off):
        raise failed(
            f"Switched off (enable_thinking: false), it still thinks: {(off.thought or off.text)[:120]!r}.",
            "Check that chat_template_kwargs reach the chat template.",
        )
    return "can be switched off"


def _thinks(answer: Completion) -> bool:
    inside = re.search(r"<think>(.*?)</think>", answer.text, re.DOTALL)
    return bool(answer.thought.strip() or (inside and inside.group(1).strip()))


def _leaks(answer: Completion) -> None:
    opened, closed = answer.text.count("<think>"), answer.text.count("</think>")
    next_step = "Give the engine the model's reasoning parser (vLLM: --reasoning-parser), or none at all."
    if opened != closed:
        raise failed(f"Thinking leaks into the answer, half marked: {answer.text[:120]!r}.", next_step)
    if answer.thought.strip() and answer.thought.strip() in answer.text:
        raise failed("What was thought stands in the answer once more.", next_step)


def usage(subject: ServedModel) -> str:
    """Tokens are counted as they are: they grow with the text, and a bound is a bound."""
    few, some, many = (
        subject.whole("Say yes." + _WORD * count, max_tokens=1) for count in (_FEW, _SOME, _MANY)
    )
    for answer in (few, some, many):
        _adds_up(answer)
    first, second = some.prompt_tokens - few.prompt_tokens, many.prompt_tokens - some.prompt_tokens
    if abs(first - second) > 0.05 * max(first, second, 1) + 1:
        raise failed(f"120 more words are {first} tokens, 120 more {second}.", _USAGE)
    _is_plausible(subject, first)
    short = subject.whole(golden_screens()[0].content(), max_tokens=_SHORT_TOKENS)
    if short.finish_reason != "length" or short.output_tokens != _SHORT_TOKENS:
        raise failed(
            f"An answer of at most {_SHORT_TOKENS} tokens ended with {short.finish_reason!r} and was counted "
            f"as {short.output_tokens}.",
            _USAGE,
        )
    streamed, whole = subject.golden_streamed, subject.golden[0][1]
    if not streamed.usage:
        raise failed("A stream that was asked for its usage (include_usage) sends none.", _USAGE)
    if streamed.prompt_tokens != whole.prompt_tokens:
        raise failed(
            f"Streamed the prompt has {streamed.prompt_tokens} tokens, whole {whole.prompt_tokens}.", _USAGE
        )
    return f"{first / (_SOME - _FEW):.2f} tokens a word, a bound of {_SHORT_TOKENS} gives {_SHORT_TOKENS}"


_USAGE = "Usage can't be trusted for bills or limits here: look at what counts it, the engine or a proxy."


def _adds_up(answer: Completion) -> None:
    total = answer.usage.get("total_tokens")
    if not answer.prompt_tokens or total != answer.prompt_tokens + answer.output_tokens:
        raise failed(f"Usage does not add up: {answer.usage}.", _USAGE)


def _is_plausible(subject: ServedModel, counted: int) -> None:
    """120 more of the commonest word are as many tokens as the address counts, or about as many as words."""
    words = _SOME - _FEW
    told = subject.address.tokens_of(subject.name, _WORD * words)
    most, least = (told + 1, told - 1) if told else (_MOST_A_WORD * words, _LEAST_A_WORD * words)
    if not least <= counted <= most:
        what = f"{told} by /tokenize" if told else "about one a word in almost any vocabulary"
        raise failed(f"{words} common words were counted as {counted} tokens ({what}).", _USAGE)


def refusals(subject: ServedModel) -> str:
    """What can't be answered is refused with a 4xx: a model that is not there, a prompt over the context."""
    try:
        subject.address.whole({**subject.body("Hello", max_tokens=4), "model": "no-such-model"})
    except NotAnswered as refused:
        if refused.status is None or not 400 <= refused.status < 500:
            raise failed(f"A model that is not there is answered with {refused}.", _REFUSE) from refused
    else:
        raise warned("Any name of a model is answered, also one that is not there.", _REFUSE)
    context = subject.context_tokens
    if context is None or context > _LONGEST_SENT_TOKENS:
        raise skipped(
            "an unknown model is refused; a prompt over the context was not sent: it is long or unknown"
        )
    try:
        answer = subject.whole(_WORD * (2 * context), max_tokens=4)
    except NotAnswered as refused:
        if refused.status is None or not 400 <= refused.status < 500:
            raise failed(f"A prompt over the context is answered with {refused}.", _REFUSE) from refused
        return "an unknown model and a prompt over the context are refused"
    raise failed(
        f"A prompt of about {2 * context} tokens was answered, counted as {answer.prompt_tokens}, though the "
        f"context is {context}: it was cut without a word.",
        "Raise the context, or have the server refuse what does not fit.",
    )


_REFUSE = (
    "Clients can't tell their own mistakes from the server's; look at what stands in front of the engine."
)
