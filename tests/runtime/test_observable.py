"""Whoever listens is told of every value, whoever waits sees the newest, and nobody is lost on the way."""

import asyncio

import pytest

from autoglm_serve.runtime.observable import Observable
from tests.fakes.clock import settled


def test_who_listens_is_told_of_every_value_in_order() -> None:
    told: list[tuple[str, int]] = []
    number = Observable(0)
    number.listen(lambda value: told.append(("one", value)), lambda value: told.append(("two", value)))
    number.replace(1)
    number.replace(2)
    assert told == [("one", 1), ("two", 1), ("one", 2), ("two", 2)]
    assert number.value == 2


def test_all_who_wait_go_on_at_a_change_with_the_newest_value() -> None:
    async def story() -> None:
        number = Observable(0)
        waiting = [asyncio.create_task(number.changed()) for _ in range(3)]
        await settled()
        number.replace(1)
        number.replace(2)
        assert await asyncio.gather(*waiting) == [2, 2, 2]

    asyncio.run(story())


def test_who_waits_for_more_waits_on_and_who_has_it_already_does_not() -> None:
    async def story() -> None:
        number = Observable(0)
        waiting = asyncio.create_task(number.until(lambda value: value > 1))
        for value in (1, 0, 2, 3):
            await settled()
            assert waiting.done() == (value == 3)
            number.replace(value)
        assert await number.until(lambda value: value == 3) == 3

    asyncio.run(story())


def test_a_change_before_the_wait_begins_is_not_missed() -> None:
    async def story() -> None:
        number = Observable("a")
        wait = number.after(number.value)
        number.replace("b")
        assert await asyncio.wait_for(wait, 1) == "b"

    asyncio.run(story())


def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    async def story() -> None:
        number = Observable(0)
        impatient, patient = (asyncio.create_task(number.changed()) for _ in range(2))
        await settled()
        impatient.cancel()
        await settled()
        number.replace(1)
        assert await patient == 1
        with pytest.raises(asyncio.CancelledError):
            await impatient

    asyncio.run(story())
