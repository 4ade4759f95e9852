"""Whether a reply is right.

Owns grading only: a reply and a case in, a verdict out. Knows nothing of servers or pictures.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .tasks import Case
from .words import Language

POINT = re.compile(r'do\(action="Tap", element=\[\s*(\d+)\s*,\s*(\d+)\s*\]\)')
ACTION = re.compile(r"(do\(.*\)|finish\(.*\))", re.DOTALL)


def is_right(case: Case, reply: str) -> bool:
    """A tap must land inside its element; any other action and any answer must be the expected one."""
    if case.task == "question":
        return reply.strip() == case.answer
    action = action_of(reply)
    if case.target is not None:
        return action is not None and _inside(action, case.target)
    return action == case.answer


def action_of(reply: str) -> str | None:
    """The action in a reply, as phone agents find it: after the thought, with or without its tags."""
    found = ACTION.search(reply.rpartition("</think>")[2].replace("</answer>", ""))
    return found[1].strip() if found else None


def point_of(reply: str) -> tuple[int, int] | None:
    """Where a reply taps, in thousandths."""
    found = POINT.search(action_of(reply) or "")
    return (int(found[1]), int(found[2])) if found else None


def _inside(action: str, target: tuple[int, int, int, int]) -> bool:
    found = POINT.fullmatch(action)
    if found is None:
        return False
    x, y = int(found[1]), int(found[2])
    left, top, right, bottom = target
    return left <= x <= right and top <= y <= bottom


def units(text: str, language: Language) -> list[str]:
    """What a transcript's errors are counted in: words in English, characters in Chinese, case and marks
    aside.
    """
    kept = "".join(letter if letter.isalnum() or letter.isspace() else " " for letter in _plain(text))
    return [letter for letter in kept if not letter.isspace()] if language == "zh" else kept.split()


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def errors(said: Sequence[str], written: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements between two sequences."""
    row = list(range(len(written) + 1))
    for index, wanted in enumerate(said, 1):
        before, row[0] = row[0], index
        for column, found in enumerate(written, 1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (wanted != found)),
            )
    return row[-1]
