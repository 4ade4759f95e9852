"""Suspects are tried one at a time, and nobody is condemned before the supervisor could speak."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.gateway.recovery.quarantine import Quarantine
from autoglm_serve.gateway.recovery.suspects import Suspects
from autoglm_serve.runtime.observable import Observable
from tests.fakes.clock import settled
from tests.gateway.gateway_process import KEPT_BY_OTHERS, fleet_of
from tests.gateway.recovery.test_quarantine import OTHER, POISON, ended_by_others

A, B, C = "http://a", "http://b", "http://c"
REPLICA = fleet_of([B]).replicas[0]


class Court:
    """The suspects, and what it listens to."""

    def __init__(self) -> None:
        self.fleet = Observable(FleetView())
        self.quarantine = Quarantine()
        self.suspects = Suspects(self.quarantine, self.fleet, asyncio.get_running_loop().time)
        self.fleet.listen(self.quarantine.fleet_changed, lambda view: self.suspects.wake())


def trying(scene: Callable[[Court], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(10):
            await scene(Court())

    asyncio.run(play())


async def go(turn: Awaitable[Callable[[], None] | None]) -> None:
    """Take a turn and be done with it."""
    leave = await turn
    assert leave is not None
    leave()


async def two_suspects(court: Court) -> tuple[Callable[[], None], asyncio.Task[Callable[[], None] | None]]:
    """The first has its turn on a replica, and how it leaves; the second asks for it."""
    for body in (POISON, OTHER):
        court.quarantine.blame(body, A, 0.0)
    leave = await court.suspects.turn(POISON, B)
    assert leave is not None
    waiting = asyncio.create_task(court.suspects.turn(OTHER, B))
    await settled()
    return leave, waiting


def test_of_two_suspects_the_second_waits_until_the_first_has_a_token() -> None:
    async def scene(court: Court) -> None:
        leave, waiting = await two_suspects(court)
        assert not waiting.done()
        await go(court.suspects.turn(OTHER, C))  # on another replica there is room
        leave()
        await go(waiting)

    trying(scene)


def test_who_is_not_suspected_does_not_wait() -> None:
    async def scene(court: Court) -> None:
        court.quarantine.blame(POISON, A, 0.0)
        await court.suspects.turn(POISON, B)
        await go(court.suspects.turn(OTHER, B))

    trying(scene)


def test_a_replica_that_died_under_the_one_before_is_not_asked_as_it_dies() -> None:
    async def scene(court: Court) -> None:
        leave, waiting = await two_suspects(court)
        leave()
        court.quarantine.blame(POISON, B, 0.0)
        assert await court.suspects.condemns(POISON, REPLICA)
        assert await waiting is None
        await go(court.suspects.turn(OTHER, C))

    trying(scene)


def test_the_news_that_somebody_killed_the_replica_ends_the_waiting() -> None:
    async def scene(court: Court) -> None:
        _, waiting = await two_suspects(court)
        court.fleet.replace(ended_by_others("a"))
        await waiting

    trying(scene)


def test_the_supervisors_word_comes_before_the_verdict() -> None:
    async def scene(court: Court) -> None:
        court.quarantine.blame(POISON, A, 0.0)
        court.quarantine.blame(POISON, B, 0.0)
        verdict = asyncio.create_task(court.suspects.condemns(POISON, REPLICA))
        await settled()
        assert not verdict.done()
        court.fleet.replace(ended_by_others("b"))
        assert not await verdict

    trying(scene)


def test_without_a_word_the_verdict_falls() -> None:
    async def scene(court: Court) -> None:
        court.quarantine.blame(POISON, A, 0.0)
        assert not await court.suspects.condemns(POISON, REPLICA)
        court.quarantine.blame(POISON, B, 0.0)
        assert await court.suspects.condemns(POISON, REPLICA)

    trying(scene)


def test_an_address_of_others_that_takes_connections_was_not_lost() -> None:
    async def scene(court: Court) -> None:
        there = {A, B}

        async def answers(base_url: str) -> bool:
            return base_url in there

        suspects = Suspects(court.quarantine, court.fleet, asyncio.get_running_loop().time, answers)
        one, two = fleet_of([A, B], engine=KEPT_BY_OTHERS).replicas
        for replica in (one, two, one, two):  # a connection was reset at each
            assert not await suspects.lost(POISON, replica)
        assert not court.quarantine.suspects(POISON)
        await go(suspects.turn(POISON, B))  # and nobody else waits for that
        there.clear()
        assert not await suspects.lost(POISON, one)
        assert await suspects.lost(POISON, two)

    trying(scene)


def test_a_replica_of_ours_that_lives_on_speaks_for_who_lost_it() -> None:
    async def scene(court: Court) -> None:
        async def answers(base_url: str) -> bool:
            return True

        suspects = Suspects(court.quarantine, court.fleet, asyncio.get_running_loop().time, answers)
        for replica in fleet_of([A, B]).replicas:
            assert not await suspects.lost(POISON, replica)

    trying(scene)
