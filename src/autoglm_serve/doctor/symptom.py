"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Worst first."""

    ERROR = "error"  # it can not work so
    WARNING = "warning"  # it works, slower or less safely than it could
    NOTE = "note"  # worth knowing


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """One thing that is wrong."""

    severity: Severity
    what: str
    evidence: str
    """What was read or measured, and where."""
    why: str
    """Why it matters."""
    remedy: str
    """The command or the flag that mends it."""


def error(what: str, *, evidence: str, why: str, remedy: str) -> Symptom:
    return Symptom(severity=Severity.ERROR, what=what, evidence=evidence, why=why, remedy=remedy)


def warning(what: str, *, evidence: str, why: str, remedy: str) -> Symptom:
    return Symptom(severity=Severity.WARNING, what=what, evidence=evidence, why=why, remedy=remedy)


def note(what: str, *, evidence: str, why: str, remedy: str) -> Symptom:
    return Symptom(severity=Severity.NOTE, what=what, evidence=evidence, why=why, remedy=remedy)
