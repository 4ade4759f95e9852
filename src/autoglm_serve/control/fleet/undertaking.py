"""A restart or a change of the settings while the service runs: it goes on, tells lines, and ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


class Undertaking:
    """One of them. Whoever asks later gets all the lines; they are in the log, too."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.good: bool | None = None
        """How it ended; None while it goes on, or has yet to begin."""
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def none(cls) -> "Undertaking":
        """What there is before the first: nothing, and it went well."""
        nothing = cls()
        nothing._end(True)
        return nothing

    def begin(self, work: Callable[[Tell], Awaitable[bool]]) -> None:
        """Do the work, which is given whom to tell, and says whether it went well."""
        self._task = asyncio.create_task(self._run(work))

    def stop(self) -> None:
        """Give it up where it is."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> bool:
        """Returns when it does not go on, with whether it went well."""
        while self.good is None:
            await self._change()
        return self.good

    async def after(self, seen: int) -> list[str]:
        """The lines beyond the first `seen`; waits until there is one, or none will come."""
        while len(self.lines) <= seen and self.good is None:
            await self._change()
        return self.lines[seen:]

    async def _run(self, work: Callable[[Tell], Awaitable[bool]]) -> None:
        good = False
        try:
            good = await work(self._tell)
        except Exception:
            log.exception("a bug ended a change to the running service")
            self._tell("it ended in a bug; the log has it")
        finally:
            self._end(good)

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        log.info(line)
        self._news.set()

    def _end(self, good: bool) -> None:
        self.good = good
        self._news.set()

    async def _change(self) -> None:
        self._news.clear()
        await self._news.wait()
