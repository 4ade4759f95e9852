"""Errands can be run, by looking at the screen alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys

from autoglm_serve.demo import actions, agent, errands, talk
from autoglm_serve.demo.errands import Errand, Step
from autoglm_serve.demo.world import Phone, element_at, view

MANY = 150


def all_errands() -> list[Errand]:
    return [errands.imagine_errand(random.Random(f"test:{n}"), least=2, most=8) for n in range(MANY)]


def way(errand: Errand) -> list[Step]:
    """The shortest way."""
    phone, steps = errand.start, []
    while True:
        steps.append(errands.next_step(errand, phone))
        if steps[-1].done:
            return steps
        phone = errands.carry_out(phone, steps[-1])


def test_every_errand_ends_within_its_steps() -> None:
    lengths = {len(way(errand)) for errand in all_errands()}
    assert lengths == set(range(2, 9))


def test_all_that_a_phone_agent_does_comes_up() -> None:
    names = {actions.parse(step.action).name for errand in all_errands() for step in way(errand)}
    wanted = {"Tap", "Type", "Swipe", "Back", "Home", "Launch", "Wait", "Take_over", "finish"}
    assert names == wanted


def test_errands_come_in_both_languages() -> None:
    languages = [errand.language for errand in all_errands()]
    assert MANY / 4 < languages.count("zh") < MANY * 3 / 4


def test_what_is_right_hangs_on_the_screen_and_not_on_the_way_to_it() -> None:
    """Lost by any tap, the way from there still leads to the end."""
    rng = random.Random("lost")
    for errand in all_errands()[:60]:
        phone = errand.start
        for _ in range(3):
            screen = view(phone)
            if screen.elements and phone.dialog is None:
                phone = phone.press(rng.choice(screen.elements))
        for _ in range(40):
            step = errands.next_step(errand, phone)
            if step.done:
                break
            phone = errands.carry_out(phone, step)
        else:
            raise AssertionError(errand.said)


def test_a_tap_of_the_way_lies_on_its_element() -> None:
    for errand in all_errands()[:60]:
        phone = errand.start
        for step in way(errand):
            action = actions.parse(step.action)
            if action.name == "Tap":
                hit = element_at(view(phone), *action.point())
                assert hit == step.element
            phone = actions.apply(phone, action)


def test_an_agent_that_is_always_right_does_it_and_one_that_gives_up_does_not() -> None:
    errand = errands.imagine_errand(random.Random("agent"), least=4)
    replies = iter([step.reply for step in way(errand)])
    asked: list[list[agent.Message]] = []

    def right(messages: list[agent.Message]) -> str:
        asked.append(messages)
        return next(replies)

    done = agent.run(errand, right, lambda phone: b"png", system="Be quick.")
    assert (done.ending, done.beyond, done.wrong_taps) == ("done", 0, 0)
    last = asked[-1]
    assert [message["role"] for message in last[:3]] == ["system", "user", "assistant"]
    assert errand.said in str(last[1]["content"])
    pictures = [str(message).count("image_url': {") for message in last]
    assert pictures == [0] * (len(last) - 1) + [1]
    quitter = agent.run(errand, lambda messages: 'finish(message="no")', lambda phone: b"png")
    assert quitter.ending == "too early"
    waiter = agent.run(errand, lambda messages: 'do(action="Note", message="True")', lambda phone: b"png")
    assert waiter.ending == "unfinished"
    talker = agent.run(errand, lambda messages: talk.IDENTITY_EN, lambda phone: b"png")
    assert talker.ending == "unreadable"


def test_a_list_that_is_swiped_to_its_end_shows_its_last_entry() -> None:
    for errand in all_errands():
        phone = errand.start
        for path, page in phone.world.pages.items():
            if page.kind != "list" or page.dialog or page.locked or page.waits:
                continue
            there: Phone = phone.go(path)
            for _ in range(20):
                there = there.swipe((500, 800), (500, 200))
            assert view(there).elements[-1].label == page.entries[-1]
            for _ in range(20):
                there = there.swipe((500, 200), (500, 800))
            assert view(there).elements[0].label == page.entries[0]


def test_a_seed_is_the_same_errand_in_every_process() -> None:
    program = """
import random
from autoglm_serve.demo import errands
from autoglm_serve.demo.world import view
for number in range(40):
    errand = errands.imagine_errand(random.Random(number))
    print(errand.said, [view(errand.start.go(path)) for path in errand.start.world.pages], errand.start.path)
"""
    told = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1


DECISIONS = ("点击它。", "屏幕上没有，向上滑动。", "tap it.", "not in view, swipe up.")


def test_a_thought_names_what_is_looked_for_before_it_says_whether_it_is_there() -> None:
    """A small model cannot look for what it has not named."""
    looking = [step for errand in all_errands() for step in way(errand) if step.seen and step.sought]
    named = [step for step in looking if actions.parse(step.action).name in ("Tap", "Swipe")]
    assert len(named) > MANY
    for step in named:
        assert step.sought is not None
        decision = next(each for each in DECISIONS if step.thought.endswith(each))
        before = step.thought.removesuffix(decision)
        assert before.rstrip('”，": ').endswith((step.sought.zh, step.sought.en)), step.thought


def test_what_lies_further_down_is_scrolled_to_after_typing_too() -> None:
    errands_made = [errands.imagine_errand(random.Random(f"far:{n}"), far_share=1.0) for n in range(MANY)]
    found = 0
    for errand in errands_made:
        phone = errand.start
        for step in way(errand):
            filled = any(element.value for element in view(phone).elements)
            found += filled and actions.parse(step.action).name == "Swipe"
            phone = errands.carry_out(phone, step)
    assert found > MANY / 10
