"""Whoever asks for a change is told how it goes, whenever he asks, and how it ended."""

import asyncio

import pytest

from autoglm_serve.control.fleet.undertaking import Tell, Undertaking


def test_lines_are_told_as_they_come_and_all_of_them_to_who_comes_late() -> None:
    async def story() -> None:
        go_on = asyncio.Event()

        async def work(tell: Tell) -> bool:
            tell("one")
            await go_on.wait()
            tell("two")
            return True

        undertaking = Undertaking()
        undertaking.begin(work)
        assert await undertaking.after(0) == ("one",)
        assert undertaking.good is None
        waiting = asyncio.create_task(undertaking.after(1))
        go_on.set()
        assert await waiting == ("two",)
        assert await undertaking.ended()
        assert await undertaking.after(0) == ("one", "two")
        assert await undertaking.after(2) == ()

    asyncio.run(story())


@pytest.mark.parametrize("problem", [RuntimeError("a bug"), asyncio.CancelledError()])
def test_whatever_cuts_it_short_it_has_ended_and_not_well(problem: BaseException) -> None:
    async def story() -> Undertaking:
        async def work(tell: Tell) -> bool:
            raise problem

        undertaking = Undertaking()
        undertaking.begin(work)
        assert not await undertaking.ended()
        return undertaking

    bug = isinstance(problem, RuntimeError)
    assert asyncio.run(story()).lines == (("it ended in a bug; the log has it",) if bug else ())


def test_one_that_is_given_up_has_ended() -> None:
    async def story() -> None:
        async def work(tell: Tell) -> bool:
            tell("begun")
            await asyncio.Event().wait()
            return True

        undertaking = Undertaking()
        undertaking.begin(work)
        await undertaking.after(0)
        undertaking.stop()
        assert not await undertaking.ended()

    asyncio.run(story())


def test_before_the_first_nothing_goes_on() -> None:
    assert Undertaking.none().good
