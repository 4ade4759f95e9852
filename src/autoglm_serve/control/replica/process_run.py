"""One life of a replica: a process from its start to its exit.

Follows the log and the health path, tells readiness and progress to the cell, and ends the process when it
is stuck or no longer wanted. Ready is what has generated a token; stuck is what does not answer, or answers
and gets on with nothing. Why it ended, and whether there is another life, is the controller's to decide.
"""

import asyncio
import logging
from contextlib import ExitStack
from functools import reduce

from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.control.replica.health import Health
from autoglm_serve.control.replica.intent import IntentCell
from autoglm_serve.control.replica.lifecycle import LifecycleEvent
from autoglm_serve.control.replica.progress import Standstill, Work, after_look
from autoglm_serve.control.replica.status_cell import StatusCell
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.replica import Progress
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.base import Exit, RunningProcess
from autoglm_serve.runtime.tasks import first_of, running

logger = logging.getLogger(__name__)

SLOWER = 1.5


class ProcessRun:
    """Awaits one process; its fields tell afterwards how it went."""

    def __init__(
        self,
        process: RunningProcess,
        engine: Engine,
        cell: StatusCell,
        effects: Effects,
        *,
        chats_as: str | None = None,
        ready: bool = False,
    ) -> None:
        """`chats_as` is the model to ask for a token, where it is one that chats; `ready` is for a process
        that was found serving."""
        self.log = process.log
        self.ready_at_s: float | None = effects.clock.now_s() if ready else None
        self.stuck: str = ""
        """What it did not do, where it was ended because it was stuck."""
        self.process = process
        self.over = False
        """Nothing of it is alive any more."""
        self._engine = engine
        self._cell = cell
        self._effects = effects
        self._chats_as = chats_as
        self._longest_s = 0.0
        """The longest standstill that it got over."""
        self._started_s = effects.clock.now_s()
        self._warned: set[str] = set()

    def ready_for_s(self) -> float:
        return 0.0 if self.ready_at_s is None else self._effects.clock.now_s() - self.ready_at_s

    async def run(self, intent: IntentCell) -> Exit:
        """Returns when the process is gone, by itself or because it is not wanted any more.

        What it started may live on until `bury`.
        """
        with ExitStack() as ended:
            ended.callback(self._read_log)
            cut_short = ended.enter_context(ExitStack())
            cut_short.callback(self.process.kill)
            async with running(self.process.exited(), self._watch(), _unwanted(intent)) as (exited, *others):
                await first_of(exited, *others)
                if not exited.done():
                    others[0].cancel()
                    self._cell.move(LifecycleEvent.STUCK if self.stuck else LifecycleEvent.STOP)
                    await self._end(exited, intent)
                how = exited.result() if exited.done() else self._immortal()
            cut_short.pop_all()
            return how

    async def bury(self) -> None:
        """After its exit: ends what it left behind, and reads the last of what that wrote."""
        await self.process.close()
        self._read_log()
        self.over = True

    async def _end(self, exited: asyncio.Task[Exit], intent: IntentCell) -> None:
        """Asks the process to stop; a new intent, which may have a shorter grace, counts at once."""
        while not exited.done():
            wanted, patience = intent.value, self._effects.patience
            grace_s = patience.stuck_grace_s if wanted.intent.alive else wanted.grace_s
            async with running(self.process.end(grace_s), intent.after(wanted)) as (ending, told):
                await first_of(exited, ending, told)
                if ending.done():
                    await asyncio.wait((exited,), timeout=patience.notice_s)
                    return

    def _immortal(self) -> Exit:
        """SIGKILL did not end it: it hangs in the kernel, most likely in a driver. Nobody can wait for it."""
        logger.error("%s: pid %d cannot be ended", self._cell.value.id, self.process.pid)
        return Exit()

    async def _watch(self) -> None:
        """Returns when the process is stuck; `stuck` says how."""
        if self.ready_at_s is not None or await self._become_ready():
            async with running(self._stay_ready(), self._get_on()) as tasks:
                await first_of(*tasks)

    async def _become_ready(self) -> bool:
        clock, patience = self._effects.clock, self._effects.patience
        look_s, last_sign_s = patience.first_look_s, clock.now_s()
        while not await self._healthy():
            if self._read_log():
                last_sign_s = clock.now_s()
            if clock.now_s() - last_sign_s > self._engine.start_timeout_s:
                self.stuck = f"It showed no progress for {self._engine.start_timeout_s:g} s while it started."
                return False
            await clock.sleep(look_s)
            look_s = min(look_s * SLOWER, patience.slowest_look_s)
        self._read_log()
        if not await self._first_token():
            return False
        self.ready_at_s = clock.now_s()
        self._cell.move(
            LifecycleEvent.ANSWERED,
            start_s=self.ready_at_s - self._started_s,
            progress=Progress(stage="ready", fraction=1.0),
        )
        return True

    async def _first_token(self) -> bool:
        """Its health path answers; whether it can generate is another matter."""
        clock, patience = self._effects.clock, self._effects.patience
        since_s = clock.now_s()
        while self._chats_as is not None:
            match await self._token(patience.first_token_s):
                case Health.OK:
                    return True
                case Health.ABSENT:
                    logger.warning("%s: does not take a plain chat; it is not tried", self._cell.value.id)
                    return True
                case _ if clock.now_s() - since_s > patience.first_token_s:
                    self.stuck = (
                        f"Its health path answers, but in {patience.first_token_s:g} s it gave no token."
                    )
                    return False
                case _:
                    await clock.sleep(patience.slowest_look_s)
        return True

    async def _get_on(self) -> None:
        """Returns when it carries requests and gets on with none, nor with a single token of its own."""
        clock, patience = self._effects.clock, self._effects.patience
        still: Standstill | None = None
        while True:
            await clock.sleep(patience.work_look_s)
            still = await self._look(still)
            stood_s = clock.now_s() - still.since_s
            if self._chats_as is None or stood_s < patience.standstill_s:
                continue
            token_s = max(patience.token_s, 2 * self._longest_s)
            if await self._token(token_s) in (Health.OK, Health.ABSENT):
                self._longest_s, still = max(self._longest_s, clock.now_s() - still.since_s), None
            elif await self._look(still) is still:
                self.stuck = (
                    f"It answers its health path, but has got on with nothing for {stood_s:.0f} s, and "
                )
                self.stuck += f"gave no token in {token_s:.0f} s."
                return

    async def _look(self, before: Standstill | None) -> Standstill:
        status, clock = self._cell.value, self._effects.clock
        in_flight, taken = self._effects.use(status.slot)
        counters = None
        if in_flight:
            timeout_s = self._effects.patience.health_timeout_s
            counters = await self._effects.counters(
                status.base_url, self._engine.work_metric, timeout_s=timeout_s
            )
        work = Work(in_flight=in_flight, finished=taken - in_flight, counters=counters)
        still = after_look(before, work, clock.now_s())
        if before is not None and still is not before and work.in_flight:
            self._longest_s = max(self._longest_s, clock.now_s() - before.since_s)
        return still

    async def _token(self, timeout_s: float) -> Health:
        assert self._chats_as is not None
        return await self._effects.generate(self._cell.value.base_url, self._chats_as, timeout_s=timeout_s)

    async def _stay_ready(self) -> None:
        clock, patience = self._effects.clock, self._effects.patience
        slot, silences, next_ask_s = self._cell.value.slot, 0, clock.now_s() + patience.health_every_s
        moved = self._effects.movement(slot)
        while silences < patience.silences:
            await clock.sleep(patience.ready_look_s)
            self._read_log()
            if clock.now_s() >= next_ask_s:
                before, lives = moved, await self._healthy()
                moved = self._effects.movement(slot)
                silences = 0 if lives or moved != before else silences + 1  # what flows speaks for it
                next_ask_s = clock.now_s() + patience.health_every_s
        self.stuck = f"Its health path {self._engine.health_path} did not answer {silences} times in a row."

    async def _healthy(self) -> bool:
        status, timeout_s = self._cell.value, self._effects.patience.health_timeout_s
        answer = await self._effects.ask(status.base_url, self._engine.health_path, timeout_s=timeout_s)
        return answer is Health.OK and self.process.listens

    def _read_log(self) -> bool:
        """Takes in new lines; true if there were any."""
        lines = self.log.read_new()
        found = [progress for line in lines if (progress := self._engine.progress(line)) is not None]
        if found and self.ready_at_s is None:
            self._cell.note(progress=found[-1])
        self._measure(lines)
        return bool(lines)

    def _measure(self, lines: tuple[str, ...]) -> None:
        """What the engine says of its memory, and what it warns of, each warning once."""
        said = [ledger for line in lines if (ledger := self._engine.measured(line)) is not None]
        if said:
            memory = reduce(MeasuredLedger.merged, said, self._cell.value.memory or MeasuredLedger())
            self._cell.note(memory=memory)
        for warning in dict.fromkeys(filter(None, map(self._engine.warning, lines))):
            if warning not in self._warned:
                self._warned.add(warning)
                logger.warning("%s: %s", self._cell.value.id, warning)


async def _unwanted(intent: IntentCell) -> None:
    """Returns once the process is to stop."""
    await intent.until(lambda wanted: not wanted.intent.alive)
