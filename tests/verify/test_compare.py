"""`compare` finds every tap that was moved on purpose, and none that was not."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.cli.main import main
from autoglm_serve.verify.agreement import agreement
from autoglm_serve.verify.golden import golden_screens
from tests.fakes.broken_serving import points
from tests.fakes.golden_model import Serving, served


def recorded(place: Path, count: int) -> Path:
    """So many chats about the golden screens, each with a number of its own in front."""
    screens = golden_screens()
    with place.open("w", encoding="utf-8") as file:
        for number in range(count):
            screen = screens[number % len(screens)]
            content = [screen.content()[0], {"type": "text", "text": f"{number}. {screen.task}"}]
            body = {"model": "old", "stream": True, "max_tokens": 200, "temperature": 0.7,
                    "messages": [{"role": "user", "content": content}]}  # fmt: skip
            file.write(json.dumps({"at_s": number, "body": body}) + "\n")
    return place


def moved(numbers: frozenset[int]) -> Serving:
    """The taps of these chats are elsewhere."""
    asked: list[int] = []

    def given(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked.append(int(messages[-1]["content"][-1]["text"].partition(".")[0]))
        return messages

    def says(text: str) -> str:
        move = points(lambda x, y: (x + 40 if x < 500 else x - 40, y))
        return move(text) if asked[-1] in numbers else text

    return Serving(given=given, says=says)


def test_it_finds_every_tap_that_was_moved_in_500_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = recorded(tmp_path / "chats.jsonl", 500)
    numbers = frozenset(random.Random(7).sample(range(500), 37))
    with served(Serving()) as first, served(moved(numbers)) as second:
        assert main(["compare", "--replay", str(place), "--url", first, "--url", second, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["pairs"], told["same"]) == (500, 463)
    found = {int(one["where"].partition(":")[2]) - 1 for one in told["differ"]}
    assert found == numbers
    assert {one["how"] for one in told["differ"]} == {"another place"}


def test_two_addresses_that_agree_pass_and_differences_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, pictures = recorded(tmp_path / "chats.jsonl", 6), tmp_path / "pictures"
    with served(Serving()) as first, served(moved(frozenset({2}))) as second:
        assert main(["compare", "--replay", str(tmp_path), "--url", first, "--url", first]) == 0
        argv = ["compare", "--replay", str(place), "--url", first, "--url", second]
        assert main([*argv, "--at-least", "0.8", "--pictures", str(pictures)]) == 0
    assert "5 of 6 make a phone do the same" in capsys.readouterr().out
    assert [picture.name for picture in pictures.iterdir()] == ["0002.png"]


def test_one_address_or_no_recording_is_a_mistake_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = recorded(tmp_path / "chats.jsonl", 1)
    assert main(["compare", "--replay", str(place), "--url", "http://127.0.0.1:9"]) == 3
    (tmp_path / "broken.jsonl").write_text('{"body": 3}\n')
    both = ["--url", "http://127.0.0.1:9", "--url", "http://127.0.0.1:9"]
    assert main(["compare", "--replay", str(tmp_path / "broken.jsonl"), *both]) == 3
    assert "broken.jsonl:1 is no recorded request" in capsys.readouterr().err


TAP = '<think>a</think><answer>do(action="Tap", element=[{},{}])</answer>'


@pytest.mark.parametrize(
    ("first", "second", "same", "how"),
    [
        (TAP.format(100, 100), TAP.format(104, 103), True, "same action, other words"),
        (TAP.format(100, 100), TAP.format(100, 111), False, "another place"),
        (TAP.format(100, 100), 'do(action="Long Press", element=[100,100])', False, "another action"),
        (TAP.format(100, 100), "I can not see it.", False, "an action against none"),
        ('do(action="Type", text="a")', 'do(action="Type", text="b")', False, "other text in the action"),
        ('do(action="Swipe", start=[1,1], end=[9,900])', 'do(action="Swipe", start=[1,1], end=[9,500])',
         False, "another place"),
        ('do(action="Tap", element=[1,1])', 'do(action="Tap")', False, "another place"),
        ("one", "two", False, "other text, no action"),
        ("one", "one", True, "same words"),
    ],
)  # fmt: skip
def test_answers_agree_as_far_as_a_phone_would_do_the_same(
    first: str, second: str, same: bool, how: str
) -> None:
    found = agreement(first, second, tolerance=10)
    assert (found.same, found.how) == (same, how)
    assert agreement(second, first, tolerance=10).same is same
