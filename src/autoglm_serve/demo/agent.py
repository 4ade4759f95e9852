"""A phone agent of our own: it looks, asks a model, and does what the model says, until the model is done.

Owns the conversation as Open-AutoGLM's client holds it: one picture, the newest; the task in the first turn;
replies stored as that client puts them together. Knows nothing of HTTP: asking is a function that is passed
in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from . import actions, errands
from .errands import Errand, Step
from .world import Phone, element_at, view

SAMPLING = {"temperature": 0.0, "top_p": 0.85, "frequency_penalty": 0.2}
"""How Open-AutoGLM's client asks for an answer."""
Message: TypeAlias = dict[str, object]
Ask: TypeAlias = Callable[[list[Message]], str]
Ending: TypeAlias = Literal["done", "too early", "unreadable", "unfinished"]


@dataclass(slots=True, kw_only=True)
class Conversation:
    """What is sent at each step."""

    task: str
    system: str = ""
    picture_first: bool = True
    _said: list[Message] = field(default_factory=list)

    def ask(self, picture: bytes, app: str, ask: Ask) -> str:
        """One step: the reply to a screen (PNG)."""
        facts = json.dumps({"current_app": app}, ensure_ascii=False)
        text = f"{'** Screen Info **' if self._said else self.task}\n\n{facts}"
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        parts: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text},
        ]  # fmt: skip
        if not self.picture_first:
            parts.reverse()
        begin: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        reply = ask([*begin, *self._said, {"role": "user", "content": parts}])
        thought, action = actions.cut(reply)
        stored = f"<think>{thought}</think><answer>{action}</answer>"
        self._said += [
            {"role": "user", "content": [{"type": "text", "text": text}]},
            {"role": "assistant", "content": stored},
        ]
        return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One step as it was taken."""

    phone: Phone
    right: Step
    reply: str
    wrong_tap: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrandRun:
    """An errand as it was run."""

    ending: Ending
    steps: tuple[Taken, ...]
    shortest: int

    @property
    def wrong_taps(self) -> int:
        return sum(step.wrong_tap for step in self.steps)

    @property
    def beyond(self) -> int:
        """Steps beyond the shortest way."""
        return max(0, len(self.steps) - self.shortest)


def run(
    errand: Errand, ask: Ask, draw: Callable[[Phone], bytes], *, system: str = "", picture_first: bool = True
) -> ErrandRun:
    """Run an errand on its pretend phone. Gives up after twice the shortest way and five steps."""
    conversation = Conversation(task=errand.said, system=system, picture_first=picture_first)
    phone = errand.start
    taken: list[Taken] = []
    shortest = errands.shortest(errand)

    def over(ending: Ending) -> ErrandRun:
        return ErrandRun(ending=ending, steps=tuple(taken), shortest=shortest)

    while len(taken) < 2 * shortest + 5:
        right = errands.next_step(errand, phone)
        reply = conversation.ask(draw(phone), app_of(phone), ask)
        try:
            action = actions.read(reply)
            wrong = action.name == "Tap" and _misses(phone, right, action)
            taken.append(Taken(phone=phone, right=right, reply=reply, wrong_tap=wrong))
            phone = actions.apply(phone, action)
        except actions.Unreadable:
            taken.append(Taken(phone=phone, right=right, reply=reply, wrong_tap=False))
            return over("unreadable")
        if action.finishes:
            return over("done" if right.done else "too early")
    return over("unfinished")


def app_of(phone: Phone) -> str:
    """The name of the app in front, as a client tells it."""
    return phone.path[0].text(phone.world.language) if phone.path else "System Home"


def _misses(phone: Phone, right: Step, action: actions.Action) -> bool:
    hit = element_at(view(phone), *action.point())
    return hit is None or right.element is None or hit.label != right.element.label
