"""Whether a reply is right.

Owns grading only: a reply and a case in, a verdict out. An action is read as a phone agent's client reads it
(`actions`), so what counts as right here runs there. Knows nothing of servers or pictures.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from . import actions, tasks
from .tasks import Case
from .words import Language


def is_right(case: Case, reply: str) -> bool:
    """A tap must land inside its element; any other action and any answer must be the expected one."""
    if case.task == "question":
        return reply.strip() == case.answer
    action, wanted = action_of(reply), actions.parse(case.answer)
    if action is None or action.name != wanted.name:
        return False
    if case.target is None:
        return action == wanted
    x, y = action.point()
    left, top, right, bottom = case.target
    return left <= x <= right and top <= y <= bottom


def action_of(reply: str) -> actions.Action | None:
    """The action that the client would run; nothing where it would find none that it can run."""
    try:
        action = actions.read(reply)
        if action.name in TOUCHES:
            action.point()
    except actions.Unreadable:
        return None
    return action


TOUCHES = frozenset({"Tap", "Long Press", "Double Tap"})


def point_of(reply: str) -> tuple[int, int] | None:
    """Where a reply touches the screen, in thousandths."""
    action = action_of(reply)
    return action.point() if action is not None and action.name in TOUCHES else None


def is_lost(reply: str) -> bool:
    """Whether a reply says that there is nothing to act on, and touches nothing."""
    plain = reply.lower()
    return point_of(reply) is None and any(word in plain for word in _LOST)


_LOST = (*(said.lower() for said in tasks.CANNOT_SEE.values()), "屏幕上没有", "there is no '")


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
