"""Reading an engine's last words: patterns of its log, what each means and what to do about it.

Shared by the adapters of the Python engines, whose tracebacks bury one telling line under many. The order of
the patterns decides, not the order of the lines: the most telling first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts

ASKED = Diagnosis(cause=ExitCause.ASKED, summary="It was asked to stop.")


@dataclass(frozen=True, slots=True)
class Clue:
    """A line of the log, and what it means. {0} in the words is the pattern's first group."""

    pattern: re.Pattern[str]
    cause: ExitCause
    summary: str
    remedy: str
    retryable: bool


def clue(pattern: str, cause: ExitCause, summary: str, remedy: str, *, retryable: bool = False) -> Clue:
    return Clue(re.compile(pattern, re.IGNORECASE), cause, summary, remedy, retryable)


def telling(clues: Sequence[Clue], facts: ExitFacts) -> Diagnosis | None:
    """The diagnosis of the first clue that any line of the log matches."""
    for known in clues:
        for line in facts.log_tail:
            found = known.pattern.search(line)
            if found:
                return _diagnosis(known, found, facts)
    return None


def last_words(title: str, clues: Sequence[Clue], facts: ExitFacts) -> Diagnosis:
    """Why the engine called `title` ended: its log's clues first, then the signal."""
    if facts.code == 0:
        return ASKED
    found = telling(clues, facts) or killed(facts, "Run fewer replicas, or give the machine more memory.")
    # Who is nobody's child, because an earlier control plane started it, ends without a status.
    how = "ended" if facts.code is None else "ended by itself"
    return found or Diagnosis(
        cause=ExitCause.UNKNOWN,
        summary=f"{title} {how} and its log names no cause that is known.",
        remedy="The replica's log has the details.",
    )


def _diagnosis(known: Clue, found: re.Match[str], facts: ExitFacts) -> Diagnosis:
    words = [group or "" for group in found.groups()]
    diagnosis = Diagnosis(
        cause=known.cause,
        summary=known.summary.format(*words),
        remedy=known.remedy.format(*words),
        retryable=known.retryable,
    )
    if facts.was_ready and known.cause is ExitCause.OUT_OF_MEMORY:
        # It fits when idle; what broke it was one moment's load.
        return replace(diagnosis, summary=f"While serving: {diagnosis.summary}", retryable=True)
    return diagnosis


def killed(facts: ExitFacts, remedy: str) -> Diagnosis | None:
    """An end by signal; None where it ended by itself."""
    if facts.signal is None:
        return None
    if facts.signal == 9 and facts.oom_kills:
        return Diagnosis(
            cause=ExitCause.OUT_OF_MEMORY,
            summary="The kernel ended it because the machine ran out of memory (RAM, not the GPU's).",
            remedy=remedy,
            retryable=facts.was_ready,
        )
    names = {6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
    return Diagnosis(
        cause=ExitCause.KILLED,
        summary=f"It was ended by {names.get(facts.signal, f'signal {facts.signal}')}.",
    )
