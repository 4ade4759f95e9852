"""A model on demand rests when nobody has asked for a while, and never in the middle of something."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.control.fleet.idle import IdleWatch, SeenUse, Use, after_look, may_sleep
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from tests.fakes.clock import FakeClock, settled

S = ReplicaState
READY = Use(states=(S.READY,), in_flight=0, taken=3)
IDLE_S = 60.0


def idle_for(use: Use, seconds: float) -> bool:
    return may_sleep(SeenUse(use=use, since_s=100.0), 100.0 + seconds, IDLE_S)


def test_it_rests_after_its_time_and_not_before() -> None:
    assert not idle_for(READY, IDLE_S - 1)
    assert idle_for(READY, IDLE_S)


@pytest.mark.parametrize("state", [S.STARTING, S.WAITING, S.STOPPING, S.DRAINING, S.STOPPED])
def test_only_what_is_ready_rests(state: ReplicaState) -> None:
    assert not idle_for(replace(READY, states=(state,)), 10 * IDLE_S)


def test_a_failed_one_rests_too_so_that_it_may_be_tried_again() -> None:
    assert idle_for(replace(READY, states=(S.FAILED,)), IDLE_S)


def test_even_without_patience_the_request_that_woke_it_may_reach_it() -> None:
    assert not may_sleep(SeenUse(use=READY, since_s=0.0), 0.1, 0.0)
    assert may_sleep(SeenUse(use=READY, since_s=0.0), 1.0, 0.0)


@given(st.integers(1, 9), st.floats(0, 1e6))
def test_nothing_in_flight_is_ever_cut_off(in_flight: int, seconds: float) -> None:
    assert not idle_for(replace(READY, in_flight=in_flight), seconds)


def test_a_request_between_two_looks_starts_the_time_anew() -> None:
    first = after_look(None, READY, 0.0)
    assert after_look(first, READY, 50.0).since_s == 0.0
    assert after_look(first, replace(READY, taken=4), 50.0).since_s == 50.0


def test_a_start_starts_the_time_anew() -> None:
    asleep = after_look(None, replace(READY, states=(S.STOPPED,)), 0.0)
    assert after_look(asleep, READY, 500.0).since_s == 500.0


class World:
    """One model on demand whose states and load the test sets, on a clock that it turns."""

    def __init__(self) -> None:
        files = ModelFiles(reference="m", format=ModelFormat.GGUF, path=Path("/m"))
        plan = Plan(engine="e", placements=(Placement(),))
        chat = Member(names=("chat",), files=files, plan=plan)
        ears = Member(names=("ears",), files=files, plan=plan, on_demand=True, idle_stop_s=IDLE_S)
        self.state = S.READY
        self.load = (0, 0)
        self.rested: list[str] = []
        self.clock = FakeClock()
        self.members = (chat, ears)
        self.watch = IdleWatch(
            self.members,
            statuses=self.statuses,
            load=lambda slot: self.load if slot == 1 else (0, 0),
            sleep=self.rested.append,
            clock=self.clock,
        )

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        chat = ReplicaStatus(id="r0", slot=0, model="chat", engine="e", state=S.READY)
        return (chat, replace(chat, id="r1", slot=1, model="ears", state=self.state))


def test_the_watch_lets_a_model_on_demand_go_and_no_other() -> None:
    async def story() -> None:
        world = World()
        watching = asyncio.ensure_future(world.watch.run())
        await world.clock.advance(IDLE_S / 2)
        world.load = (1, 1)  # a request comes …
        await world.clock.advance(2 * IDLE_S)
        world.load = (0, 1)  # … and ends
        await world.clock.advance(IDLE_S - 2)
        assert world.rested == []
        await world.clock.advance(4)
        assert set(world.rested) == {"ears"}
        world.state, count = S.STOPPED, len(world.rested)
        await world.clock.advance(10 * IDLE_S)
        assert len(world.rested) == count
        watching.cancel()

    asyncio.run(story())


def test_a_model_that_comes_later_is_watched_too() -> None:
    async def story() -> None:
        world = World()
        members = world.members
        world.watch.watch(())
        watching = asyncio.ensure_future(world.watch.run())
        await world.clock.advance(10 * IDLE_S)
        assert world.rested == []
        world.watch.watch(members)
        await world.clock.advance(2 * IDLE_S)
        assert set(world.rested) == {"ears"}
        watching.cancel()
        await settled()

    asyncio.run(story())
