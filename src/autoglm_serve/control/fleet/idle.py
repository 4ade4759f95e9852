"""Puts models on demand to sleep when nobody has asked for them for a while.

What counts as idle is decided by `after_look`, a pure function of what was seen last and what is seen now.
The number of requests taken so far is part of it, so that one that came and went between two looks counts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autoglm_serve.core.plan import Member
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.runtime.clock import Clock

_MAY_SLEEP = frozenset({ReplicaState.READY, ReplicaState.STOPPED, ReplicaState.FAILED})
"""A failed one too: put to sleep, it may be woken to a new try."""
_LEAST_S = 0.5
"""The request that a model was started for needs a moment to reach it."""
_LOOKS = 10
"""In the time that a model may be idle, and one a second at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How much the replicas of one model are used."""

    states: tuple[ReplicaState, ...]
    in_flight: int
    taken: int
    """Requests so far. It may fall when a gateway worker is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenUse:
    """A use, and since when it has been the same."""

    use: Use
    since_s: float


def after_look(before: SeenUse | None, use: Use, now_s: float) -> SeenUse:
    """What is known after a look; anything that moves starts the time anew."""
    return before if before is not None and before.use == use else SeenUse(use=use, since_s=now_s)


def may_sleep(seen: SeenUse, now_s: float, idle_stop_s: float) -> bool:
    use = seen.use
    awake = any(state is not ReplicaState.STOPPED for state in use.states)
    still = not use.in_flight and _MAY_SLEEP.issuperset(use.states)
    return awake and still and now_s - seen.since_s >= max(idle_stop_s, _LEAST_S)


class IdleWatch:
    """Looks now and then at every model that runs on demand."""

    def __init__(
        self,
        members: Iterable[Member],
        *,
        statuses: Callable[[], tuple[ReplicaStatus, ...]],
        load: Callable[[int], tuple[int, int]],
        sleep: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """`load` gives the requests in flight on a slot, and those it has taken so far."""
        self.watch(members)
        self._statuses = statuses
        self._load = load
        self._put_to_sleep = sleep
        self._clock = clock
        self._seen: dict[str, SeenUse] = {}

    def watch(self, members: Iterable[Member]) -> None:
        """Look at these from now on."""
        self._members = tuple(member for member in members if member.on_demand)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            pause_s = min((1.0, *(member.idle_stop_s / _LOOKS for member in self._members)))
            await self._clock.sleep(max(pause_s, 0.01))

    def look(self) -> None:
        now_s = self._clock.now_s()
        for member in self._members:
            seen = after_look(self._seen.get(member.name), self._use(member.name), now_s)
            self._seen[member.name] = seen
            if may_sleep(seen, now_s, member.idle_stop_s):
                self._put_to_sleep(member.name)

    def _use(self, model: str) -> Use:
        mine = [status for status in self._statuses() if status.model == model]
        loads = [self._load(status.slot) for status in mine]
        return Use(
            states=tuple(status.state for status in mine),
            in_flight=sum(in_flight for in_flight, _ in loads),
            taken=sum(taken for _, taken in loads),
        )
