"""Phone agents that never stop asking, and what each of their steps came to.

The load is `agent_load`'s: one screenshot never seen yet, the text of the steps before, a limited answer. A
session of that ends with its first error; here a failed step is written down and the session goes on, because
what is counted is who was hurt by a blow, and for how long anybody had to wait.
"""

import asyncio
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.chaos.client import Answer, ask, chat
from benchmarks.gpu.agent_load import PAINTERS, screenshot, words

_WHOLE = ("stop", "length")
_AFTER_ERROR_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One chat, answered or not. Times are `time.perf_counter()`'s."""

    begun_s: float
    ended_s: float
    first_s: float
    """The wait for the first event; until the end, where none came."""
    gap_s: float
    """The longest wait between two events, or between the last one and the end."""
    tokens: int
    asked: int
    """Tokens, said by the engine and wanted."""
    finish: str
    trouble: str
    """What the agent would have failed of; empty for a whole answer."""
    streamed: bool
    """Its first event came."""

    @property
    def pause_s(self) -> float:
        """The longest that its agent saw nothing happen."""
        return max(self.first_s, self.gap_s)

    @property
    def inexact(self) -> bool:
        """It ended at its limit, and that is not what was asked."""
        return self.finish == "length" and self.tokens != self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked."""

    sessions: int
    output_tokens: int = 128
    system_tokens: int = 1500
    task_steps: int = 20
    """Then an agent begins another task, with a history of nothing."""
    spread_s: float = 4.0
    seed: int = 1


class Arrivals:
    """When the events of one stream came: signs of life between them are none."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self._read = 0

    def __call__(self, answer: Answer) -> None:
        if b"data: {" in answer.body[max(0, self._read - 6) :]:
            self.at_s.append(time.perf_counter())
        self._read = len(answer.body)


def taken(answer: Answer, arrivals: Arrivals, ended_s: float, asked: int) -> Step:
    """The step that this answer was."""
    begun_s = answer.arrivals_s[0]
    times = [*arrivals.at_s, ended_s]
    trouble = answer.lost or answer.error or ", ".join(answer.wrong())
    finish, tokens = ("", 0) if trouble else end_of(answer)
    if not trouble and finish not in _WHOLE:
        trouble = f"finish reason {finish}"
    return Step(
        begun_s=begun_s,
        ended_s=ended_s,
        first_s=times[0] - begun_s,
        gap_s=max((after - before for before, after in pairwise(times)), default=0.0),
        tokens=tokens,
        asked=asked,
        finish=finish,
        trouble=trouble,
        streamed=bool(arrivals.at_s),
    )


def end_of(answer: Answer) -> tuple[str, int]:
    """Why it ended, and how many tokens it says that it wrote."""
    finish, tokens = "", 0
    for value in answer.values:
        tokens = (value.get("usage") or {}).get("completion_tokens", tokens)
        for choice in value.get("choices") or ():
            finish = choice.get("finish_reason") or finish
    return finish, tokens


class Agents:
    """All of them. `steps` grows as they go."""

    def __init__(self, model: str, load: Load) -> None:
        self.load = load
        self.steps: list[Step] = []
        self.flowing = asyncio.Event()
        """Set once there are as many steps as sessions."""
        self._model = model
        self._system = words(random.Random(load.seed), load.system_tokens)

    async def run(self, port: int) -> None:
        """Until it is cancelled."""
        context = multiprocessing.get_context("spawn")  # a fork would share our signal handlers
        with ProcessPoolExecutor(PAINTERS, mp_context=context) as painters:
            async with asyncio.TaskGroup() as group:
                for number in range(self.load.sessions):
                    group.create_task(self._agent(port, number, painters))

    async def _agent(self, port: int, number: int, painters: ProcessPoolExecutor) -> None:
        load = self.load
        dice = random.Random(f"{load.seed}/{number}")
        await asyncio.sleep(load.spread_s * number / load.sessions)
        while True:
            history: list[dict[str, Any]] = [{"role": "system", "content": self._system}]
            for turn in range(load.task_steps):
                seed = f"{load.seed}/{number}/{dice.random()}"
                picture = await asyncio.get_running_loop().run_in_executor(painters, screenshot, seed)
                text = f"session {number} step {turn}: " + words(dice, 80)
                length = round(load.output_tokens * dice.uniform(0.5, 1.5))
                step = await self._step(port, [*history, _seen(picture, text)], length)
                self.steps.append(step)
                if len(self.steps) >= load.sessions:
                    self.flowing.set()
                if step.trouble:
                    await asyncio.sleep(_AFTER_ERROR_S)
                answer = f"<think>{words(dice, 110)}</think><answer>do(Tap)</answer>"
                history += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]

    async def _step(self, port: int, messages: list[dict[str, Any]], length: int) -> Step:
        fields = chat("", model=self._model, max_tokens=length, ignore_eos=True)
        fields |= {"messages": messages, "stream_options": {"include_usage": True}}
        arrivals = Arrivals()
        answer = await ask(port, fields, on_piece=arrivals)
        return taken(answer, arrivals, time.perf_counter(), length)


def _seen(picture: str, text: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
    return {"role": "user", "content": content}
