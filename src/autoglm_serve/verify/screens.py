"""Whether pictures are really seen, and where the model taps."""

import re
from collections.abc import Callable
from math import ceil
from typing import Any

from autoglm_serve.demo.actions import cut

from .finding import failed, skipped, warned
from .golden import GoldenScreen, golden_screens
from .served_model import ServedModel
from .server import Completion

_ELEMENT = re.compile(r"element\s*=\s*\[\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*\]")
_ENOUGH = 5 / 6
_LEAST_PICTURE_TOKENS = 16
_RULE = "Check the page before you tap, wait for it while it loads, and say what you have done. "
_RULE_TOKENS = 20
_PIXELS_A_TOKEN = 28 * 28
"""Of GLM-4.1V and Qwen2-VL: patches of 14 by 14 pixels, two by two to a token."""

Point = tuple[float, float]
Turn = Callable[[GoldenScreen, float, float], Point]
_TURNS: dict[str, Turn] = {
    "in pixels of the screenshot": lambda s, x, y: (x / s.width_px * 1000, y / s.height_px * 1000),
    "from 0 to 1": lambda s, x, y: (x * 1000, y * 1000),
    "from 0 to 100": lambda s, x, y: (x * 10, y * 10),
    "with x and y exchanged": lambda s, x, y: (y, x),
    "on the picture upside down": lambda s, x, y: (999 - x, 999 - y),
    "on the picture turned to the right": lambda s, x, y: (y, 999 - x),
    "on the picture turned to the left": lambda s, x, y: (999 - y, x),
    "on the picture mirrored": lambda s, x, y: (999 - x, y),
}
"""How taps can be wrong in a way that has one cause, and what would put them right."""


def point_of(reply: str) -> Point | None:
    """Where a reply taps, in whatever scale it is written; None where it taps nowhere."""
    action = cut(reply)[1]
    found = _ELEMENT.search(action) if 'action="Tap"' in action.replace("'", '"') else None
    return (float(found.group(1)), float(found.group(2))) if found else None


def taps(subject: ServedModel) -> str:
    """The model taps what it is told to, in thousandths of the screen."""
    points = [(screen, point_of(answer.text)) for screen, answer in subject.golden]
    hits = _hits(points, lambda screen, x, y: (x, y))
    if hits >= _ENOUGH * len(points):
        return f"{hits} of {len(points)} golden screens"
    if all(point is None for _, point in points):
        reply = subject.golden[0][1].text
        raise failed(
            f"No answer has a tap that a phone agent can run: {reply[:160]!r}.",
            "This is another model, or its chat template is wrong: AutoGLM answers with do(action=…).",
        )
    for how, turn in _TURNS.items():
        if (right := _hits(points, turn)) >= _ENOUGH * len(points):
            raise failed(
                f"Taps are {how}: {hits} of {len(points)} hit, {right} would.",
                "Give pictures to the model as they are, and its coordinates to clients as thousandths.",
            )
    raise failed(f"{hits} of {len(points)} golden screens: {_where(points)}.", _PICTURE)


_PICTURE = "Check that pictures arrive whole; then max_pixels, the quantisation and the engine's version."


def _hits(points: list[tuple[GoldenScreen, Point | None]], turn: Turn) -> int:
    return sum(screen.is_hit(*turn(screen, *point)) for screen, point in points if point is not None)


def _where(points: list[tuple[GoldenScreen, Point | None]]) -> str:
    return "; ".join(
        f"{screen.task!r} is at {screen.target}, tapped {point and tuple(round(each) for each in point)}"
        for screen, point in points
        if point is None or not screen.is_hit(*point)
    )


def picture_seen(subject: ServedModel) -> str:
    """The answer hangs on the picture, and the picture is counted."""
    screen, seen = subject.golden[0]
    blind = subject.golden_blind
    tokens = seen.prompt_tokens - blind.prompt_tokens
    next_step = (
        "Look at what drops pictures: a model without its mmproj or processor, a proxy, a wrong template."
    )
    if tokens < _LEAST_PICTURE_TOKENS:
        raise failed(
            f"A picture of {screen.width_px}x{screen.height_px} adds {tokens} tokens to a prompt.", next_step
        )
    elsewhere = next(other for other in golden_screens() if other.file != screen.file)
    swapped = subject.whole([elsewhere.content()[0], {"type": "text", "text": screen.task}])
    if blind.text == seen.text == swapped.text:
        raise failed("Answered alike with the picture, with another, and with none.", next_step)
    return f"it is {tokens} tokens, and the answer is another without it"


def picture_tokens(subject: ServedModel) -> str:
    """A picture is as many tokens as its family makes of it."""
    screen, seen = subject.golden[0]
    tokens = seen.prompt_tokens - subject.golden_blind.prompt_tokens
    if not re.search(r"autoglm-phone-9b|glm-4\.[156]v|qwen[23](\.5)?-vl", subject.name, re.IGNORECASE):
        raise skipped(f"{tokens} tokens; the family of {subject.name} is not told by its name")
    expected = ceil(screen.width_px / 28) * ceil(screen.height_px / 28)
    if tokens < 0.85 * expected:
        raise warned(
            f"A picture of {screen.width_px}x{screen.height_px} is {tokens} tokens, at full size "
            f"{expected}: it is made smaller before the model sees it.",
            "Small things are tapped less surely; raise max_pixels (--max-pixels) if the GPU has the room.",
        )
    if tokens > 1.15 * expected + 8:
        raise failed(f"A picture is counted as {tokens} tokens, {expected} are expected.", _PICTURE)
    return f"{tokens} tokens of {expected} expected at {_PIXELS_A_TOKEN} pixels a token"


def long_context(subject: ServedModel) -> str:
    """A long prompt is read to its last token, and the task is still done."""
    context = subject.context_tokens
    tokens = min(subject.long_tokens, context - 1500 if context else subject.long_tokens)
    if tokens < 1000:
        raise skipped(f"the context is {context} tokens")
    screen, short = subject.golden[0]
    half, whole = (subject.address.whole(_after_rules(subject, screen, share * tokens)) for share in (0.5, 1))
    counted = [answer.prompt_tokens for answer in (short, half, whole)]
    first, second = counted[1] - counted[0], counted[2] - counted[1]
    if abs(first - second) > 0.05 * tokens or first + second < 0.4 * tokens:
        raise failed(
            f"Prompts that grow evenly are counted as {counted} tokens: the rest was cut without a word.",
            "Raise the context (--max-model-len; llama.cpp: --ctx-size, Ollama: num_ctx), or have what does "
            "not fit refused.",
        )
    if _taps(screen, whole):
        return f"{counted[2]} tokens, and the screen is still tapped rightly"
    if not _taps(screen, short):
        raise skipped(f"{counted[2]} tokens are counted; the screen is tapped wrongly in a short prompt, too")
    raise failed(
        f"With {counted[2]} tokens in front of it the screen is tapped wrongly: {whole.text[:120]!r}.",
        "Check the context that the engine was started with, and rope scaling where the model wants it.",
    )


def _taps(screen: GoldenScreen, answer: Completion) -> bool:
    point = point_of(answer.text)
    return point is not None and screen.is_hit(*point)


def _after_rules(subject: ServedModel, screen: GoldenScreen, tokens: float) -> dict[str, Any]:
    """A screen after a system prompt of about so many tokens."""
    rules = _RULE * max(1, round(tokens / _RULE_TOKENS))
    return subject.talk([{"role": "system", "content": rules}, {"role": "user", "content": screen.content()}])
