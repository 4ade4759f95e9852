"""A supervisor whose processes, clock, dice and engines' health all belong to the test."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.replica.backoff import BackOff
from autoglm_serve.control.replica.effects import Effects, Patience
from autoglm_serve.control.replica.health import Health
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.engines.external import External
from tests.fakes.clock import FakeClock, settled
from tests.fakes.faulty_adapter import FaultyAdapter
from tests.fakes.launcher import FakeLauncher, FakeProcess

BACK_OFF = BackOff(first_s=1.0, factor=2.0, most_s=60.0, jitter=0.0, stable_s=60.0)


@dataclass
class World:
    """Turn the clock, break a process, look at what the supervisor makes of it."""

    supervisor: Supervisor
    launcher: FakeLauncher
    clock: FakeClock
    health: dict[str, Health] = field(default_factory=dict)
    """By base URL; any other address is in `else_health`."""
    else_health: Health = Health.OK
    token: Health = Health.OK
    """What comes of asking a replica for one token."""
    tokens_asked: int = 0
    use: tuple[int, int] = (0, 0)
    """Requests in flight on every slot, and those it was given so far."""
    movement: int = 0
    """Changes while clients are brought something."""
    steps: int | None = None
    """The engines' own counters."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    history: list[tuple[str, ReplicaState]] = field(default_factory=list)
    """Every state a replica was ever seen in, in order."""

    @property
    def status(self) -> ReplicaStatus:
        return self.supervisor.statuses()[0]

    @property
    def process(self) -> FakeProcess:
        """The one that was started last."""
        return self.launcher.started[-1]

    async def ask(self, base_url: str, path: str, /, *, timeout_s: float) -> Health:
        self.asked.append((base_url, path))
        return self.health.get(base_url, self.else_health)

    async def generate(self, base_url: str, model: str, /, *, timeout_s: float) -> Health:
        self.tokens_asked += 1
        if self.token is Health.SILENT:
            await self.clock.sleep(timeout_s)
        return self.token

    async def counters(self, base_url: str, work: re.Pattern[bytes], /, *, timeout_s: float) -> int | None:
        return self.steps

    def note(self) -> None:
        for status in self.supervisor.statuses():
            last = next((state for name, state in reversed(self.history) if name == status.id), None)
            if last is not status.state:
                self.history.append((status.id, status.state))

    def states(self, replica_id: str = "r0") -> list[ReplicaState]:
        return [state for name, state in self.history if name == replica_id]


@asynccontextmanager
async def world(
    tmp_path: Path, *members: Member, adapter: FaultyAdapter | None = None, health: Health = Health.OK
) -> AsyncIterator[World]:
    """The supervisor runs inside the block; leaving it stops what still runs."""
    clock = FakeClock()
    launcher = FakeLauncher(tmp_path, clock)
    here: World

    async def ask(base_url: str, path: str, /, *, timeout_s: float) -> Health:
        return await here.ask(base_url, path, timeout_s=timeout_s)

    supervisor = Supervisor(
        DesiredState.of(Deployment(members=members)),
        engines={"faulty": adapter or FaultyAdapter(start_timeout_s=60.0), "external": External()},
        effects=Effects(
            launcher=launcher,
            clock=clock,
            rng=random.Random(0),
            ask=ask,
            generate=lambda url, model, /, *, timeout_s: here.generate(url, model, timeout_s=timeout_s),
            counters=lambda url, work, /, *, timeout_s: here.counters(url, work, timeout_s=timeout_s),
            use=lambda slot: here.use,
            movement=lambda slot: here.movement,
            back_off=BACK_OFF,
            patience=Patience(notice_s=0.01),
        ),
        on_change=lambda: here.note(),
    )
    here = World(supervisor, launcher, clock, else_health=health)
    task = asyncio.create_task(supervisor.run())
    await settled()
    try:
        yield here
    finally:
        launcher.obeys = True
        stopping = asyncio.create_task(supervisor.stop(0.0))
        await clock.advance(120.0)
        await asyncio.wait_for(asyncio.gather(stopping, task), 5)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))
