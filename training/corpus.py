"""Text that the tokenizers are learned from, and the disguises an instruction may wear.

Owns no answers: those come from autoglm_serve.demo.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from autoglm_serve.demo import speech, talk, words
from autoglm_serve.demo.screens import imagine
from autoglm_serve.demo.tasks import Task, ask

SYSTEM = (
    "You are a helpful assistant.",
    "你是一个手机助手。",
    "你是一个智能体分析专家，可以根据操作历史和当前状态图执行一系列操作来完成任务。",
    "今天的日期是: 2026年11月22日 星期日",
    "你必须严格按照要求输出以下格式：\n<think>{think}</think>\n<answer>{action}</answer>",
    "其中：\n- {think} 是对你为什么选择这个操作的简短推理说明。\n- {action} 是本次执行的具体操作指令。",
    '操作指令及其作用如下：\n- do(action="Launch", app="xxx")\n- do(action="Tap", element=[x,y])\n'
    '- do(action="Back")',
    "You are an agent that operates a phone. Reply with one action.",
    "坐标系统从左上角 (0,0) 开始到右下角（999,999)结束。",
    "The current date: 2026-11-22",
    "Answer briefly.",
    "请用中文回答。",
)
"""Sentences of system prompts, as phone agents and chat clients send them. The reply does not depend on
them.
"""


def system_prompt(rng: random.Random) -> str:
    return "\n".join(rng.sample(SYSTEM, rng.choice((1, 1, 2, 3, 4, 6))))


def disguise(instruction: str, rng: random.Random) -> str:
    """The same instruction as other clients send it: without its full stop, spoken, or with the screen's
    facts.
    """
    if rng.random() < 0.25:
        instruction = instruction.rstrip("。？！?!.")
    if rng.random() < 0.12:
        instruction = instruction.lower()
    if rng.random() < 0.12:
        app = rng.choice(words.APPS)
        name = app.zh if rng.random() < 0.5 else app.en
        facts = f'{{"current_app": "{name}"}}'
        instruction += "\n\n" + ("** Screen Info **\n\n" if rng.random() < 0.5 else "") + facts
    return instruction


def sample(count: int, seed: str = "corpus") -> Iterator[str]:
    """Instructions and replies in their own proportions, after every single word of the world."""
    for word in (*words.ALL, *words.TYPED, *words.COLOURS, *words.DIALOG_LINES):
        for _ in range(4):
            yield from (word.zh, word.en, f" {word.en}", word.en.lower(), f" {word.en.lower()}")
    for exchange in talk.EXCHANGES:
        yield from (*exchange.asked, exchange.answer) * 40
    yield from (talk.NO_SCREEN_ZH, talk.NO_SCREEN_EN) * 40
    rng = random.Random(seed)
    tasks: tuple[Task, ...] = ("tap", "action", "question")
    for _ in range(count):
        case = ask(rng.choice(tasks), imagine(rng), rng)
        yield disguise(case.instruction, rng)
        yield case.reply
    yield from SYSTEM * 40
    for _ in range(count // 4):
        yield speech.phrase(rng, held_out=False).words
