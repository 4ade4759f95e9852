import asyncio

from autoglm_serve.control.replica.intent import Intent, IntentCell
from autoglm_serve.control.tasks import first_of, running
from tests.fakes.clock import settled


def test_a_wish_made_before_its_waiter_waits_is_not_lost() -> None:
    async def story() -> None:
        intent = IntentCell(Intent.RUN)
        seen = intent.version
        intent.make(Intent.END)
        await asyncio.wait_for(intent.changed(seen), 1)

    asyncio.run(story())


def test_every_waiter_hears_of_a_wish() -> None:
    async def story() -> None:
        intent = IntentCell(Intent.RUN)
        async with running(*(intent.changed(intent.version) for _ in range(3))) as waiters:
            await settled()
            intent.make(Intent.SLEEP, 5.0)
            await settled()
            assert all(waiter.done() for waiter in waiters)
        assert (intent.now, intent.grace_s) == (Intent.SLEEP, 5.0)

    asyncio.run(story())


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
