"""kill -9 of the replica that serves, at a random point of a stream, with others alive.

Each trial asks one of a few questions, greedily, and kills the replica that answers after a random number of
events. What the client then has must be one well-formed stream that keeps what it had been sent; how often it
is the very text of the undisturbed run is counted, not promised.
"""

import argparse
import asyncio
import random
import re
import statistics
from dataclasses import dataclass, field

from benchmarks.chaos.client import Answer, ask, chat
from benchmarks.chaos.stand import Stand, kill, percentile, stand, total
from benchmarks.machine import hardware_and_load

QUESTIONS = (
    *(
        "打开微信",
        "打开设置",
        "点击搜索框",
        "返回上一页",
        "你是谁？",
        "屏幕上有什么？",
        "发送消息给妈妈",
        "向下滑动",
    ),
    *("Open the settings", "Tap the search box", "Go back", "Who are you?", "What is on the screen?"),
)
_ACTION = re.compile(r"(?:do|finish)\(.*\)", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the trials came to."""

    trials: int = 0
    hit: int = 0
    """Kills that met the stream before its end."""
    complete: int = 0
    prefix_kept: int = 0
    equal: int = 0
    same_action: int = 0
    actions: int = 0
    pauses_s: list[float] = field(default_factory=list)
    """The longest that a client waited for the next event of a stream that was hit."""
    usual_s: list[float] = field(default_factory=list)
    """Time to the first event of an undisturbed run: one prefill."""
    bad: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        hit = max(self.hit, 1)
        prefill_s = statistics.median(self.usual_s)
        pause = " / ".join(f"{percentile(self.pauses_s, each) * 1e3:.0f}" for each in (50, 90, 99)) + " ms"
        actions = f", the same action in {self.same_action} of {self.actions}" if self.actions else ""
        return [
            f"trials {self.trials}, of them {self.hit} killed in mid-stream",
            f"complete streams {self.complete}, the prefix kept in {self.prefix_kept}",
            f"text equal to the undisturbed run {self.equal} ({self.equal / hit:.1%}){actions}",
            f"longest pause that the client saw, p50 / p90 / p99: {pause}; "
            f"first event of an undisturbed stream, median {prefill_s * 1e3:.0f} ms",
            *self.bad[:10],
        ]


async def trials(place: Stand, count: int, seed: int, max_tokens: int, every_s: float) -> Tally:
    """`count` streams that are hit; those that had ended when the kill came are not counted."""
    rng, tally = random.Random(seed), Tally()
    usual = {question: await _undisturbed(place, question, max_tokens, tally) for question in QUESTIONS}
    while tally.hit < count:
        next_s = asyncio.get_running_loop().time() + every_s
        question = rng.choice(QUESTIONS)
        cut = rng.randrange(1, max(2, len(usual[question].events) - 8))
        pids = {replica["id"]: replica["pid"] for replica in await place.ready(2)}
        await _trial(place, chat(question, max_tokens=max_tokens), cut, pids, usual[question], tally)
        # One that dies again and again within seconds of its start is kept waiting, as it should be.
        await asyncio.sleep(next_s - asyncio.get_running_loop().time())
        if tally.trials % 50 == 0:
            print(f"  {tally.hit} of {count}", flush=True)
    return tally


async def _undisturbed(place: Stand, question: str, max_tokens: int, tally: Tally) -> Answer:
    answer = await ask(place.port, chat(question, max_tokens=max_tokens))
    assert not answer.wrong(), answer.wrong()
    tally.usual_s.append(answer.arrivals_s[1] - answer.arrivals_s[0])
    return answer


async def _trial(
    place: Stand, fields: dict[str, object], cut: int, pids: dict[str, int], usual: Answer, tally: Tally
) -> None:
    at_kill = [""]

    def strike(answer: Answer) -> None:
        if not at_kill[0] and answer.body.count(b"\n\n") >= cut:
            victim = pids.get(answer.headers["x-autoglm-replica"])
            at_kill[0] = answer.text
            if victim is not None:
                kill(victim)

    before = total(await place.metrics(), "autoglm_recoveries_total")
    answer = await ask(place.port, dict(fields), on_piece=strike)
    tally.trials += 1
    if total(await place.metrics(), "autoglm_recoveries_total") == before and answer.whole:
        return  # the engine had written all of it before it died
    tally.hit += 1
    wrong = answer.wrong() + ([answer.lost] if answer.lost else []) + ([answer.error] if answer.error else [])
    if wrong:
        tally.bad.append(f"after {cut} events of {fields['messages']}: {wrong}")
        return
    tally.complete += 1
    tally.prefix_kept += answer.text.startswith(at_kill[0])
    tally.equal += answer.text == usual.text
    tally.pauses_s.append(answer.longest_pause_s)
    if wanted := _ACTION.search(usual.text):
        found = _ACTION.search(answer.text)
        tally.actions += 1
        tally.same_action += found is not None and found[0] == wanted[0]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=9, help="each must live 4 s, or is held back")
    parser.add_argument("--every-s", type=float, default=0.7, help="between two kills")
    parser.add_argument("--max-tokens", type=int, default=200)


def run(arguments: argparse.Namespace) -> bool:
    with stand("--replicas", str(arguments.replicas)) as place:
        tally = asyncio.run(
            trials(place, arguments.trials, arguments.seed, arguments.max_tokens, arguments.every_s)
        )
    print(hardware_and_load(), *tally.lines(), sep="\n")
    return not tally.bad and tally.complete == tally.prefix_kept == tally.hit
