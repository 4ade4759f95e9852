"""Restarts one at a time, told as stories on a clock that stands still."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autoglm_serve.control.fleet.rolling import Rolling
from autoglm_serve.control.replica.health import Health
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ReplicaState
from tests.control.worlds import World, run, world
from tests.fakes.faulty_adapter import faulty_member

S = ReplicaState
DRAIN_S = 30.0


@dataclass
class Roll:
    """A rolling restart in a world, and what it told."""

    world: World
    room: bool = True
    load: dict[int, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rolling = Rolling(
            supervisor=self.world.supervisor,
            in_flight=lambda slot: self.load.get(slot, 0),
            room_for=lambda pid: self.room,
            clock=self.world.clock,
        )

    def restart(self, *ids: str) -> "asyncio.Task[bool]":
        return asyncio.create_task(self.rolling.restart(ids, DRAIN_S, self.told.append))

    def states(self) -> dict[str, ReplicaState]:
        return {status.id: status.state for status in self.world.supervisor.statuses()}


def test_the_second_is_not_touched_before_the_first_is_ready_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2)) as w:
            await w.clock.advance(1)
            roll = Roll(w)
            w.else_health = Health.NOT_YET
            w.health = {status.base_url: Health.OK for status in w.supervisor.statuses()}
            done = roll.restart("r0", "r1")
            await w.clock.advance(10)
            assert roll.states() == {"r0": S.STARTING, "r1": S.READY}
            w.else_health = Health.OK
            await w.clock.advance(10)
            assert await done
            assert [status.restarts for status in w.supervisor.statuses()] == [0, 0]
            assert len(w.launcher.started) == 4
            states = [state for _, state in w.history]
            assert S.STOPPED not in states[2:]  # the gateway would give requests up that wait

    run(story)


def test_what_is_in_flight_is_waited_for_and_no_longer_than_said(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2)) as w:
            await w.clock.advance(1)
            roll = Roll(w, load={0: 3, 1: 1})
            done = roll.restart("r0", "r1")
            await w.clock.advance(DRAIN_S - 1)
            assert roll.states() == {"r0": S.DRAINING, "r1": S.READY}
            await w.clock.advance(3)
            assert roll.states() == {"r0": S.READY, "r1": S.DRAINING}
            assert any("3 requests have not ended" in line for line in roll.told)
            roll.load[1] = 0
            await w.clock.advance(2)
            assert await done

    run(story)


def test_a_replica_that_does_not_come_back_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2)) as w:
            await w.clock.advance(1)
            roll = Roll(w)
            w.launcher.broken = FileNotFoundError("the engine is gone")
            done = roll.restart("r0", "r1")
            await w.clock.advance(10)
            assert not await done
            assert roll.states() == {"r0": S.FAILED, "r1": S.READY}
            assert "the engine is gone" in roll.told[-1]

    run(story)


@pytest.mark.parametrize("room", [True, False])
def test_the_only_one_is_stood_in_for_where_there_is_room(tmp_path: Path, room: bool) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            roll = Roll(w, room=room)
            done = roll.restart("r0")
            await w.clock.advance(10)
            assert await done
            assert roll.states() == {"r0": S.READY}
            assert len(w.launcher.started) == (3 if room else 2)

    run(story)


def test_a_model_that_sleeps_is_left_to_sleep(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(on_demand=True)) as w:
            roll = Roll(w)
            done = roll.restart("r0")
            await w.clock.advance(1)
            assert await done
            assert w.launcher.started == []

    run(story)


def test_a_stop_in_the_middle_is_not_held_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2)) as w:
            await w.clock.advance(1)
            roll = Roll(w, load={0: 1})
            done = roll.restart("r0", "r1")
            await w.clock.advance(1)
            await w.supervisor.stop(0.0)
            await w.clock.advance(1)
            assert not await done

    run(story)


@pytest.mark.parametrize(("replicas", "flags"), [(3, ()), (1, ()), (2, ("--other",)), (3, ("--other",))])
def test_other_settings_are_gone_over_to(tmp_path: Path, replicas: int, flags: tuple[str, ...]) -> None:
    async def story() -> None:
        before = faulty_member(replicas=2)
        after = faulty_member(replicas=replicas, engine_args=flags)
        async with world(tmp_path, before) as w:
            await w.clock.advance(1)
            roll = Roll(w)
            done = asyncio.create_task(conform(roll, before, after))
            await w.clock.advance(20)
            assert await done
            assert list(roll.states().values()) == [S.READY] * replicas
            new = 2 if flags else 0
            assert len(w.launcher.started) == 2 + new + max(0, replicas - 2)

    run(story)


def test_a_model_with_another_name_is_asked_by_its_old_one_until_it_is_restarted(tmp_path: Path) -> None:
    async def story() -> None:
        before = faulty_member()
        async with world(tmp_path, before) as w:
            await w.clock.advance(1)
            roll = Roll(w, room=False)
            done = asyncio.create_task(conform(roll, before, replace(before, names=("mine",))))
            await asyncio.sleep(0)
            assert (w.status.model, w.status.answers_to) == ("mine", ("faulty-model",))
            await w.clock.advance(10)
            assert await done
            assert (w.status.model, w.status.answers_to) == ("mine", ("mine",))

    run(story)


async def conform(roll: Roll, before: Member, after: Member) -> bool:
    desired = roll.world.supervisor.desired
    assert desired.replicas[0].member == before
    wanted = desired.revised(Deployment(members=(before,)), Deployment(members=(after,)))
    return await roll.rolling.conform(wanted, DRAIN_S, roll.told.append)
