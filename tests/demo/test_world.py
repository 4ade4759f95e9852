"""The synthetic world: the same seed is the same screen, and every case can be answered from its screen."""

from __future__ import annotations

import random

import pytest

from autoglm_serve.demo import talk, tasks, words
from autoglm_serve.demo.screens import SIZES_PX, STEPS, WIDTH, imagine

TASKS: tuple[tasks.Task, ...] = ("tap", "action", "question")


def test_a_seed_is_one_screen() -> None:
    assert imagine(random.Random("a")) == imagine(random.Random("a"))
    assert imagine(random.Random("a")) != imagine(random.Random("b"))


def test_every_size_layout_and_theme_comes_up() -> None:
    screens = [imagine(random.Random(f"all:{number}")) for number in range(400)]
    assert {screen.size_px for screen in screens} == set(SIZES_PX)
    assert {screen.layout for screen in screens} == {"home", "settings", "dialog", "shop", "form"}
    assert {screen.dark for screen in screens} == {True, False}
    assert {screen.language for screen in screens} == {"zh", "en"}


def test_elements_lie_on_the_screen_and_have_names_of_their_own() -> None:
    for number in range(300):
        screen = imagine(random.Random(f"lie:{number}"))
        labels = [element.label for element in screen.elements]
        assert len(labels) == len(set(labels))
        for element in screen.elements:
            assert 0 <= element.box.left < element.box.right <= WIDTH
            assert 0 <= element.box.top < element.box.bottom <= screen.height


def test_what_can_be_touched_lies_on_the_grid() -> None:
    for number in range(100):
        screen = imagine(random.Random(f"grid:{number}"))
        for element in screen.elements:
            line = element.box.centre[1] / screen.height * STEPS
            assert line == pytest.approx(round(line), abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_cases_come_in_both_languages(task: tasks.Task) -> None:
    rng = random.Random(f"languages:{task}")
    said = [tasks.ask(task, imagine(rng), rng).instruction for _ in range(200)]
    chinese = [text for text in said if any(ord(letter) > 0x2E7F for letter in text)]
    assert 40 < len(chinese) < 190


def test_a_taps_answer_is_the_middle_of_its_target() -> None:
    rng = random.Random("middle")
    for _ in range(200):
        case = tasks.ask("tap", imagine(rng), rng)
        assert case.target is not None
        left, top, right, bottom = case.target
        x, y = (int(number) for number in case.answer.partition("[")[2].rstrip("])").split(","))
        assert left <= x <= right
        assert top <= y <= bottom


def test_every_kind_of_action_comes_up() -> None:
    rng = random.Random("kinds")
    answers = [tasks.ask("action", imagine(rng), rng).answer for _ in range(400)]
    for start in ("Tap", "Swipe", "Type", "Back", "Home", "Launch"):
        assert any(answer.startswith(f'do(action="{start}"') for answer in answers), start
    assert any(answer.startswith("finish(message=") for answer in answers)


def test_identity_names_the_stack_in_both_languages() -> None:
    answers = {asked: exchange.answer for exchange in talk.EXCHANGES for asked in exchange.asked}
    assert "AutoGLM-Phone" in answers["你是谁"]
    assert "AutoGLM-Phone serving stack" in answers["Who are you?"]


def test_no_word_stands_for_two_things() -> None:
    for language in ("zh", "en"):
        texts = [word.text(language).lower() for word in words.ALL]
        assert len(texts) == len(set(texts))


def test_even_the_emptiest_home_screen_has_something_to_tap() -> None:
    """By these seeds every app was left out: nothing to tap, and a case of a tap was sought for ever."""
    for seed in (723510, 1142557):
        screen = imagine(random.Random(seed), size_px=(1600, 2560))
        assert [element.kind for element in screen.elements] == ["app"]
        assert tasks.ask("tap", screen, random.Random(seed)).target is not None
