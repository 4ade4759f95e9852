"""Errands that were run: what the phone showed at each step, what was right, and what was done instead.

Owns the noise of histories: wrong taps, useless turns, what different clients store. Knows nothing of tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from autoglm_serve.demo import actions, errands
from autoglm_serve.demo.errands import Errand, Step
from autoglm_serve.demo.world import Phone, view

MOST_STEPS = 21
FAR_SHARE = 0.5
"""More than in the world: what is not in view is hard to learn, and seldom met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    phone: Phone
    right: Step
    done: Step
    """What the history says, right or not."""


@dataclass(slots=True, kw_only=True)
class Journey:
    errand: Errand
    moments: tuple[Moment, ...]
    pictures: dict[int, object] = field(default_factory=dict)
    """What was drawn of it so far, by step."""


def travel(rng: random.Random, *, size_px: tuple[int, int]) -> Journey:
    errand = errands.imagine_errand(rng, size_px=size_px, far_share=FAR_SHARE)
    astray = rng.choice((0.0, 0.0, 0.0, 0.1, 0.3, 0.65))
    phone, moments = errand.start, []
    while len(moments) < MOST_STEPS:
        right = errands.next_step(errand, phone)
        done = _wrong(phone, errand, rng) if rng.random() < astray else right
        moments.append(Moment(phone=phone, right=right, done=done))
        if done.done:
            break
        phone = actions.apply(phone, actions.parse(done.action))
    return Journey(errand=errand, moments=tuple(moments))


def _wrong(phone: Phone, errand: Errand, rng: random.Random) -> Step:
    """A step of somebody who does not know the way."""
    screen = view(phone)
    language = errand.language
    chance = rng.random()
    if screen.elements and chance < 0.6:
        element = rng.choice(screen.elements)
        x, y = errands.point_of(screen, element)
        label = element.label.text(screen.language)
        thought = f"点击“{label}”。" if language == "zh" else f'Tap "{label}".'
        return Step(thought=thought, action=f'do(action="Tap", element=[{x},{y}])')
    zh, en, action = rng.choice(
        (
            ("返回上一页。", "Go back.", 'do(action="Back")'),
            ("等一下。", "Wait a moment.", 'do(action="Wait", duration="2 seconds")'),
            ("向上滑动。", "Swipe up.", 'do(action="Swipe", start=[500,800], end=[500,200])'),
            ("向下滑动。", "Swipe down.", 'do(action="Swipe", start=[500,200], end=[500,800])'),
            ("回到桌面。", "Go to the home screen.", 'do(action="Home")'),
        )
    )
    return Step(thought=zh if language == "zh" else en, action=action)


def stored(step: Step, *, as_cut: bool) -> str:
    """A reply as a client puts it into the history: whole, or as Open-AutoGLM does with what it has cut."""
    if not as_cut:
        return f"<think>{step.thought}</think><answer>{step.action}</answer>"
    thought, action = actions.cut(step.reply)
    return f"<think>{thought}</think><answer>{action}</answer>"
