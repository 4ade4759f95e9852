"""Attaching to servers that already run."""

import asyncio

import pytest

from autoglm_serve.core.errors import ConfigError, Unreachable
from autoglm_serve.core.plan import Member
from autoglm_serve.deploy.attach import attach
from tests.fakes.engine_process import running_engine

pytestmark = pytest.mark.process
NOBODY = "http://127.0.0.1:1"


def attached(*urls: str, names: tuple[str, ...] = ()) -> Member:
    return asyncio.run(attach(urls, names))


def test_the_model_keeps_its_name() -> None:
    with running_engine("--models", "theirs") as engine:
        member = attached(engine.url)
    assert (member.names, member.upstream_model) == (("theirs",), "theirs")
    assert [placement.address for placement in member.plan.placements] == [engine.url]
    assert (member.plan.engine, member.plan.max_model_len) == ("external", 8192)


def test_it_can_be_served_under_other_names() -> None:
    with running_engine("--models", "theirs") as engine:
        member = attached(engine.url, names=("ours", "alias"))
    assert (member.names, member.upstream_model) == (("ours", "alias"), "theirs")


def test_of_several_models_the_served_name_chooses() -> None:
    with running_engine("--models", "a,b") as engine:
        assert attached(engine.url, names=("b",)).upstream_model == "b"
        with pytest.raises(ConfigError, match="one and the same") as unclear:
            attached(engine.url)
    assert "a, b" in unclear.value.why


def test_servers_of_different_models_are_refused() -> None:
    with (
        running_engine("--models", "a") as one,
        running_engine("--models", "b") as other,
        pytest.raises(ConfigError, match="one and the same"),
    ):
        attached(one.url, other.url)


def test_one_address_that_answers_is_enough() -> None:
    with running_engine("--models", "a") as engine:
        member = attached(NOBODY, engine.url)
    assert member.plan.replicas == 2
    assert "1 of them do not answer yet" in member.plan.reasons


def test_none_is_not() -> None:
    with pytest.raises(Unreachable, match=NOBODY):
        attached(NOBODY, NOBODY)
