"""What somebody who asked for a change is told of it: one line a step, and how it ended."""

import asyncio
from collections.abc import Callable


class Steps:
    """The lines of one undertaking; whoever asks later gets them all."""

    def __init__(self, echo: Callable[[str], None] = lambda line: None) -> None:
        self.lines: list[str] = []
        self.good: bool | None = None
        """How it ended; None while it goes on."""
        self._echo = echo
        self._news = asyncio.Event()

    def tell(self, line: str) -> None:
        self.lines.append(line)
        self._echo(line)
        self._news.set()

    def end(self, good: bool) -> None:
        self.good = good
        self._news.set()

    async def after(self, seen: int) -> list[str]:
        """The lines beyond the first `seen`; waits until there is one, or none will come."""
        while len(self.lines) <= seen and self.good is None:
            self._news.clear()
            await self._news.wait()
        return self.lines[seen:]
