"""A value that changes: one owner replaces it, others see the newest, are told of it, or wait for it."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Observable(Generic[T]):
    """Holds an immutable value, which is replaced whole."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._listeners: tuple[Callable[[T], None], ...] = ()
        self._next: asyncio.Future[None] | None = None

    @property
    def value(self) -> T:
        return self._value

    def replace(self, value: T) -> None:
        """Whoever waits goes on in a later turn of the loop; who listens is told now, in order."""
        self._value = value
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
        for listener in self._listeners:
            listener(value)

    def listen(self, *listeners: Callable[[T], None]) -> None:
        """Told of every value from now on."""
        self._listeners += listeners

    async def changed(self) -> T:
        """The newest value, after the next change."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._next)
        return self._value

    async def after(self, seen: T) -> T:
        """The newest value, once it is not the very one that was seen; no change on the way is missed."""
        return await self.until(lambda value: value is not seen)

    async def until(self, holds: Callable[[T], bool]) -> T:
        """The newest value, once that holds of it."""
        while not holds(self._value):
            await self.changed()
        return self._value
