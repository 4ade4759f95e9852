"""Replies are read as Open-AutoGLM's client reads them."""

from __future__ import annotations

import random

import pytest

from autoglm_serve.demo import actions, errands, tasks
from autoglm_serve.demo.screens import imagine


@pytest.mark.parametrize(
    ("reply", "name", "arguments"),
    [
        ('<think>a</think><answer>do(action="Tap", element=[1,2])', "Tap", {"element": [1, 2]}),
        ('do(action="Type", text="say \\"hi\\", 好")', "Type", {"text": 'say \\"hi\\", 好'}),
        ('x finish(message="done")', "finish", {"message": "done"}),
        ("<answer>do(action='Back')</answer>".replace("</answer>", ""), "Back", {}),
    ],
)
def test_a_reply_is_cut_where_the_action_begins(reply: str, name: str, arguments: dict[str, object]) -> None:
    action = actions.read(reply)
    assert (action.name, action.arguments) == (name, arguments)


@pytest.mark.parametrize(
    "reply",
    [
        '<think>a</think><answer>do(action="Tap", element=[1,2])</answer>',  # the tag ends the call's reading
        "I would tap there.",
        'do(action="Tap", element=[1,2',
        "do(element=[1,2])",
        "",
    ],
)
def test_what_the_client_cannot_run_is_unreadable(reply: str) -> None:
    with pytest.raises(actions.Unreadable):
        actions.read(reply)


def test_every_right_reply_of_the_world_can_be_run() -> None:
    rng = random.Random("run")
    kinds: tuple[tasks.Task, ...] = ("tap", "action")
    for _ in range(300):
        screen = imagine(rng)
        assert actions.read(tasks.ask(rng.choice(kinds), screen, rng).reply).name
        step = errands.decide(errands.errand_on(screen, rng), screen)
        assert actions.read(step.reply) == actions.parse(step.action)


def test_an_action_that_no_handler_knows_is_refused() -> None:
    errand = errands.imagine_errand(random.Random(1))
    with pytest.raises(actions.Unreadable, match="no such action"):
        actions.apply(errand.start, actions.read('do(action="Fly")'))
    with pytest.raises(actions.Unreadable, match=r"element=\[x,y\]"):
        actions.apply(errand.start, actions.read('do(action="Tap", element="here")'))
