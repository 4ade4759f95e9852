import asyncio

import pytest

from autoglm_serve.runtime.tasks import any_set, first_of, running


def test_tasks_are_over_when_their_block_is() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("forever")

    async def story() -> None:
        async with running(forever(), asyncio.sleep(0)) as tasks:
            await first_of(*tasks)
        assert ended == ["forever"]

    asyncio.run(story())


def test_a_failure_of_any_of_them_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("told")

    async def story() -> str:
        try:
            async with running(fail(), asyncio.Event().wait()) as tasks:
                await first_of(*tasks)
        except ValueError as problem:
            return str(problem)
        return ""

    assert asyncio.run(story()) == "told"


def test_the_first_event_of_several_is_enough() -> None:
    async def story() -> None:
        never, now = asyncio.Event(), asyncio.Event()
        now.set()
        await asyncio.wait_for(any_set(never, now), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(any_set(never), 0.01)

    asyncio.run(story())
