"""Grading is strict about what matters and blind to what does not."""

from __future__ import annotations

import pytest

from autoglm_serve.demo import judge, tasks
from autoglm_serve.demo.tasks import Case

TAP = Case(
    task="tap",
    instruction="Tap OK",
    answer='do(action="Tap", element=[500,600])',
    target=(400, 580, 600, 620),
)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ('<think>Tap "OK".</think><answer>do(action="Tap", element=[500,600])', True),
        ('<think>Tap "OK".</think><answer>do(action="Tap", element=[500,600])</answer>', False),
        ('do(action="Tap", element=[401,581])', True),
        ('do(action="Tap", element=[399,600])', False),
        ('<think>do(action="Tap", element=[500,600])</think><answer>do(action="Back")', False),
        ('do(action="Long Press", element=[500,600])', False),
        ("I would tap OK.", False),
        ("", False),
    ],
)
def test_a_tap_is_right_inside_its_element(reply: str, right: bool) -> None:
    assert judge.is_right(TAP, reply) is right


def test_another_action_needs_kind_and_argument() -> None:
    case = Case(
        task="action", instruction="输入牛奶", answer='do(action="Type", text="牛奶")', thought="输入“牛奶”。"
    )
    assert judge.is_right(case, case.reply)
    assert not judge.is_right(case, 'do(action="Type", text="奶牛")')
    assert not judge.is_right(case, 'do(action="Launch", app="牛奶")')


def test_a_question_needs_the_answer_itself() -> None:
    case = Case(task="question", instruction="Is Sound on?", answer="Sound is on.")
    assert judge.is_right(case, " Sound is on.\n")
    assert not judge.is_right(case, "Sound is off.")


@pytest.mark.parametrize(
    ("said", "written", "count"),
    [
        ("open the door", "open the door", 0),
        ("open the door", "open a door", 1),
        ("open", "", 1),
        ("", "open", 1),
    ],
)
def test_errors_are_the_fewest_edits(said: str, written: str, count: int) -> None:
    assert judge.errors(judge.units(said, "en"), judge.units(written, "en")) == count


def test_chinese_counts_characters_and_ignores_marks() -> None:
    assert judge.units("点击，设置。", "zh") == ["点", "击", "设", "置"]
    assert judge.units("Tap “Settings”!", "en") == ["tap", "settings"]


@pytest.mark.parametrize(
    ("reply", "lost"),
    [
        (tasks.cannot_see("zh"), True),
        (tasks.cannot_see("en"), True),
        ("""finish(message="There is no 'OK' on the screen.")""", True),
        ('do(action="Tap", element=[500,600])', False),
        ('<think>There is nothing here that I know.</think><answer>do(action="Tap", element=[5,6])', False),
        ("OK is on.", False),
    ],
)
def test_who_sees_nothing_says_so_and_touches_nothing(reply: str, lost: bool) -> None:
    assert judge.is_lost(reply) is lost
