"""How long the requests of one worker may take. All are looked at now and then, none has its own timer."""

import asyncio

Serving = asyncio.Task[None] | None


class TimeLimit:
    """The tasks that serve requests, the oldest first. One that has taken too long is cancelled.

    A limit of 0 is none.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._begun: dict[Serving, float] = {}
        self._late: set[Serving] = set()

    def enter(self, task: Serving, now_s: float) -> None:
        """From now on it has so much time."""
        if self._limit_s:
            self._begun[task] = now_s

    def leave(self, task: Serving) -> None:
        self._begun.pop(task, None)
        self._late.discard(task)

    def has_ended(self, task: Serving) -> bool:
        """It was cancelled because its time is over, and for nothing else."""
        return task in self._late

    def sweep(self, now_s: float) -> None:
        while self._begun:
            task, begun_s = next(iter(self._begun.items()))
            if now_s - begun_s < self._limit_s:
                return
            del self._begun[task]
            if task is not None and not task.cancelling():
                self._late.add(task)
                task.cancel()
