"""Every check in order, each with its outcome."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import crowd, screens, speech, text
from .finding import CheckOutcome, Finding, Judged
from .served_model import ServedModel
from .server import NotAnswered


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check's name, and what is done: it says what it found right, or raises Judged or NotAnswered."""

    name: str
    run: Callable[[ServedModel], str]


CHECKS = tuple(
    Check(name=name, run=run)
    for name, run in (
        ("name", text.name),
        ("picture seen", screens.picture_seen),
        ("taps", screens.taps),
        ("picture tokens", screens.picture_tokens),
        ("stream", text.stream),
        ("parts", text.parts),
        ("stop tokens", text.stop_tokens),
        ("thinking", text.thinking),
        ("usage", text.usage),
        ("refusals", text.refusals),
        ("long context", screens.long_context),
        ("concurrency", crowd.concurrency),
        ("speech", speech.transcription),
    )
)


def verify(
    subject: ServedModel, *, told: Callable[[Finding], None] = lambda finding: None
) -> tuple[Finding, ...]:
    """What every check found. `told` is given each finding as it is there."""
    findings = []
    for check in CHECKS:
        began_s = time.monotonic()
        finding = replace(_finding(check, subject), seconds=round(time.monotonic() - began_s, 3))
        told(finding)
        findings.append(finding)
    return tuple(findings)


def _finding(check: Check, subject: ServedModel) -> Finding:
    try:
        return Finding(check=check.name, outcome=CheckOutcome.PASSED, said=check.run(subject))
    except Judged as judged:
        return Finding(check=check.name, outcome=judged.outcome, said=judged.said, next_step=judged.next_step)
    except NotAnswered as error:
        return Finding(
            check=check.name, outcome=CheckOutcome.FAILED, said=f"Not answered: {error}.",
            next_step="Read the server's log of that moment.",
        )  # fmt: skip
