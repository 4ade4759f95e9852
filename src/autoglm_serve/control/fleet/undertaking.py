"""A restart or a change of the settings while the service runs: it goes on, tells lines, and ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from autoglm_serve.runtime.observable import Observable

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What there is to tell of one."""

    lines: tuple[str, ...] = ()
    good: bool | None = None
    """How it ended; None while it goes on, or has yet to begin."""


class Undertaking:
    """One of them. Whoever asks later gets all the lines; they are in the log, too."""

    def __init__(self) -> None:
        self._told = Observable(Course())
        self._task: asyncio.Task[None] | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        return self._told.value.lines

    @property
    def good(self) -> bool | None:
        return self._told.value.good

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
        return bool((await self._told.until(lambda told: told.good is not None)).good)

    async def after(self, seen: int) -> Sequence[str]:
        """The lines beyond the first `seen`; waits until there is one, or none will come."""
        told = await self._told.until(lambda told: len(told.lines) > seen or told.good is not None)
        return told.lines[seen:]

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
        log.info(line)
        self._told.replace(replace(self._told.value, lines=(*self.lines, line)))

    def _end(self, good: bool) -> None:
        self._told.replace(replace(self._told.value, good=good))
