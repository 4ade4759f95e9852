"""Sends a workload: a closed loop of sessions, or requests that come at their times, whoever is done.

Owns the clock of a run and its end. What is under way when the time is up is cut off and not counted, so that
no quiet end is in the figures; what is due and could not be sent is late from when it was due.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autoglm_serve.bench.client import LoadClient, Sample
from autoglm_serve.bench.figures import ClientHealth, Figures, Objectives, figures, percentile
from autoglm_serve.bench.workloads import Session, Sessions

_TICK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How a workload is sent."""

    url: str
    key: str = "EMPTY"
    sessions: int = 8
    """That are under way at once; in an open loop, the most that may be."""
    rate_per_s: float | None = None
    """Requests that come, on average, at times of a Poisson process; None: a closed loop."""
    warm_up_s: float = 5.0
    """At the beginning, over which sessions start one by one; not counted."""
    seconds: float = 30.0
    """That are counted."""
    steps: int | None = None
    """Requests of each session; None: until the time is up."""
    timeout_s: float = 300.0
    seed: int = 0
    objectives: Objectives = field(default_factory=Objectives)


@dataclass(slots=True, kw_only=True)
class LoadRun:
    """What has come of a plan so far."""

    plan: LoadPlan
    began_s: float
    samples: list[Sample] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    under_way: int = 0

    def now_s(self) -> float:
        return time.perf_counter() - self.began_s

    def figures(self) -> Figures:
        """Of what was counted by now."""
        plan, now_s = self.plan, self.now_s()
        end_s = min(now_s, plan.warm_up_s + plan.seconds)
        if plan.steps is not None:
            end_s = max((one.ended_s for one in self.samples), default=now_s) + 1e-6
        return figures(self.samples, (plan.warm_up_s, end_s), plan.objectives, self._health(now_s))

    def _health(self, now_s: float) -> ClientHealth:
        lags = sorted(self.lags_s)
        share = (time.process_time() - self.cpu_s) / now_s if now_s > 0 else 0.0
        return ClientHealth(lag_p99_s=percentile(lags, 0.99) if lags else 0.0, cpu_share=share)


async def run(
    plan: LoadPlan, workload: Sessions, *, on_tick: Callable[[LoadRun], None] = lambda _: None
) -> LoadRun:
    """Until the time is up or every session has ended. `on_tick` is given the run at once and again and
    again, so that whoever is interrupted has what there was by then."""
    state = LoadRun(plan=plan, began_s=time.perf_counter(), cpu_s=time.process_time())
    on_tick(state)
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(_tick(state, on_tick))
        work = group.create_task(_open(state, workload) if plan.rate_per_s else _closed(state, workload))
        limit_s = None if plan.steps is not None else plan.warm_up_s + plan.seconds
        await asyncio.wait((work,), timeout=limit_s)
        for task in (work, ticking):
            task.cancel()
    return state


async def _tick(state: LoadRun, on_tick: Callable[[LoadRun], None]) -> None:
    """Shows the progress, and how late this loop is: a client that is late measures itself."""
    while True:
        before_s = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        state.lags_s.append(max(0.0, time.perf_counter() - before_s - _TICK_S))
        on_tick(state)


async def _closed(state: LoadRun, workload: Sessions) -> None:
    plan = state.plan
    async with asyncio.TaskGroup() as group:
        for number in range(plan.sessions):
            begin_s = plan.warm_up_s * number / plan.sessions
            group.create_task(_session(state, workload.session(number), begin_s))


async def _session(state: LoadRun, session: Session, begin_s: float) -> None:
    client = LoadClient(state.plan.url, state.plan.key, state.began_s, state.plan.timeout_s)
    try:
        await asyncio.sleep(begin_s)
        steps = 0
        while steps != state.plan.steps and (ask := session.next()) is not None:
            due_s = ask.at_s if ask.at_s is not None else state.now_s() + ask.wait_s
            await asyncio.sleep(max(0.0, due_s - state.now_s()))
            state.under_way += 1
            sample, text = await client.ask(ask, due_s)
            state.under_way -= 1
            state.samples.append(sample)
            session.answered(text)
            steps += 1
            if sample.error:
                await asyncio.sleep(
                    0.2
                )  # an address that is down must not be asked a thousand times a second
    finally:
        client.close()


async def _open(state: LoadRun, workload: Sessions) -> None:
    """Requests at their times: each the next step of a session that is free, or of a new one.

    Where `sessions` are under way already the request waits, and is late from when it was due.
    """
    plan, dice = state.plan, random.Random(state.plan.seed)
    assert plan.rate_per_s is not None
    room = asyncio.Semaphore(plan.sessions)
    free: list[tuple[Session, LoadClient]] = []
    made, due_s = 0, 0.0
    async with asyncio.TaskGroup() as group:
        while True:
            due_s += dice.expovariate(plan.rate_per_s)
            await asyncio.sleep(max(0.0, due_s - state.now_s()))
            await room.acquire()
            if not free:
                client = LoadClient(plan.url, plan.key, state.began_s, plan.timeout_s)
                free.append((workload.session(made), client))
                made += 1
            group.create_task(_one(state, free.pop(), free, room, due_s))


async def _one(
    state: LoadRun,
    who: tuple[Session, LoadClient],
    free: list[tuple[Session, LoadClient]],
    room: asyncio.Semaphore,
    due_s: float,
) -> None:
    session, client = who
    try:
        ask = session.next()
        if ask is not None:
            state.under_way += 1
            sample, text = await client.ask(ask, due_s)
            state.under_way -= 1
            state.samples.append(sample)
            session.answered(text)
            free.append(who)
    finally:
        room.release()
