"""What sessions ask."""

import json
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.bench.workloads import Agent, Questions, Replay, RequestShape
from autoglm_serve.core.errors import ConfigError

SHAPE = RequestShape(model="m", width_px=56, height_px=56, system_tokens=30, steps=3, think_s=2.0)


def bodies(workload: Agent | Questions, number: int, steps: int) -> list[dict[str, Any]]:
    session = workload.session(number)
    found = []
    for step in range(steps):
        ask = session.next()
        assert ask is not None
        found.append(json.loads(ask.body))
        session.answered(f"answer {step}")
    return found


def pictures(body: dict[str, Any]) -> list[str]:
    parts = [part for message in body["messages"] for part in message["content"] if isinstance(part, dict)]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def test_an_agents_step_has_one_fresh_picture_and_the_text_of_those_before() -> None:
    first, second, third = bodies(Agent(SHAPE), 0, 3)
    assert [len(pictures(body)) for body in (first, second, third)] == [1, 1, 1]
    assert len({url for body in (first, second, third) for url in pictures(body)}) == 3
    assert [message["role"] for message in third["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert third["messages"][4]["content"] == "answer 1"
    assert isinstance(third["messages"][1]["content"], str)


def test_a_task_ends_and_the_next_begins_without_its_history() -> None:
    assert [len(body["messages"]) for body in bodies(Agent(SHAPE), 0, 4)] == [2, 4, 6, 2]


def test_the_same_seed_asks_the_same_and_sessions_differ() -> None:
    assert bodies(Agent(SHAPE), 1, 2) == bodies(Agent(SHAPE), 1, 2)
    assert bodies(Agent(SHAPE), 1, 1) != bodies(Agent(SHAPE), 2, 1)
    assert bodies(Agent(SHAPE), 1, 1)[0]["messages"][0] == bodies(Agent(SHAPE), 2, 1)[0]["messages"][0]


def test_a_session_thinks_before_every_step_but_its_first() -> None:
    session = Agent(SHAPE).session(0)
    waits = [ask.wait_s for ask in (session.next(), session.next(), session.next()) if ask is not None]
    assert waits[0] == 0.0
    assert all(1.0 <= wait <= 3.0 for wait in waits[1:])


def test_answers_are_bounded_around_the_average() -> None:
    limits = [body["max_tokens"] for body in bodies(Questions(shape=SHAPE), 0, 200)]
    assert min(limits) >= 64
    assert max(limits) <= 192
    assert 120 < sum(limits) / len(limits) < 136


def test_a_replay_asks_each_recorded_request_at_its_time(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    lines = [
        {"at_s": 4, "body": {"messages": [], "stream": True}},
        {"body": {"model": "other", "messages": []}},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    replay = Replay(file, model="m", speed=2.0)
    assert len(replay) == 2
    ask = replay.session(0).next()
    assert ask is not None
    assert (ask.at_s, ask.streamed, json.loads(ask.body)["model"]) == (2.0, True, "m")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"body": 3}', '{"body": {}, "at_s": -1}', '{"body": {}, "at_s": "x"}']
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text('{"body": {}}\n' + line)
    with pytest.raises(ConfigError, match=r"trace\.jsonl:2 is no recorded request"):
        Replay(file, model="m")
