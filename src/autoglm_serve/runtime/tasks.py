"""Tasks that live as long as a block, and not a moment longer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, Any]) -> AsyncIterator[tuple[asyncio.Task[Any], ...]]:
    """The coroutines as tasks; leaving the block cancels those that still run and waits for them."""
    tasks = tuple(asyncio.create_task(coroutine) for coroutine in coroutines)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(*tasks: asyncio.Task[Any]) -> None:
    """Returns when one of them is done; raises what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def any_set(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    async with running(*(event.wait() for event in events)) as waits:
        await first_of(*waits)
