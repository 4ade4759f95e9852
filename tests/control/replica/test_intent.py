import asyncio

from autoglm_serve.control.replica.intent import Intent, IntentCell
from autoglm_serve.runtime.tasks import running
from tests.fakes.clock import settled


def test_a_wish_made_before_its_waiter_waits_is_not_lost() -> None:
    async def story() -> None:
        intent = IntentCell(Intent.RUN)
        seen = intent.value
        intent.make(Intent.END)
        await asyncio.wait_for(intent.after(seen), 1)

    asyncio.run(story())


def test_every_waiter_hears_of_a_wish() -> None:
    async def story() -> None:
        intent = IntentCell(Intent.RUN)
        async with running(*(intent.after(intent.value) for _ in range(3))) as waiters:
            await settled()
            intent.make(Intent.SLEEP, 5.0)
            await settled()
            assert all(waiter.done() for waiter in waiters)
        assert (intent.now, intent.value.grace_s) == (Intent.SLEEP, 5.0)

    asyncio.run(story())


def test_the_same_wish_again_is_one_more() -> None:
    async def story() -> None:
        intent = IntentCell(Intent.END)
        seen = intent.value
        intent.make(Intent.END)
        await asyncio.wait_for(intent.after(seen), 1)

    asyncio.run(story())
