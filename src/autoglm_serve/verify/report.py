"""Findings as a table, as JSON, and as JUnit's XML for a build server."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from .finding import CheckOutcome, Finding

_MARKS = {
    CheckOutcome.PASSED: "ok",
    CheckOutcome.WARNED: "warning",
    CheckOutcome.FAILED: "FAILED",
    CheckOutcome.SKIPPED: "skipped",
}
_WIDTH = 16


def line(finding: Finding) -> str:
    """A finding in a line, and what to do next below it."""
    told = f"{finding.check:<{_WIDTH}}{_MARKS[finding.outcome]:<9}{finding.said}"
    return f"{told}\n{'':<{_WIDTH}}{'':<9}Next: {finding.next_step}" if finding.next_step else told


def summary(findings: Sequence[Finding]) -> str:
    counts = [(outcome, sum(one.outcome is outcome for one in findings)) for outcome in CheckOutcome]
    seconds = sum(one.seconds for one in findings)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts if count) + f", in {seconds:.0f} s"


def as_json(url: str, model: str, findings: Sequence[Finding]) -> str:
    told = {"url": url, "model": model, "findings": [asdict(one) for one in findings]}
    return json.dumps(told, ensure_ascii=False, indent=2)


def as_junit(url: str, model: str, findings: Sequence[Finding]) -> str:
    broken, left_out = _count(findings, CheckOutcome.FAILED), _count(findings, CheckOutcome.SKIPPED)
    suite = ElementTree.Element(
        "testsuite", name=_plain(f"{model} at {url}"), tests=str(len(findings)), failures=str(broken),
        skipped=str(left_out),
    )  # fmt: skip
    for one in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname="autoglm.verify", name=one.check, time=f"{one.seconds:.3f}"
        )
        if one.outcome is CheckOutcome.FAILED:
            ElementTree.SubElement(case, "failure", message=_plain(one.said)).text = _plain(one.next_step)
        elif one.outcome is CheckOutcome.SKIPPED:
            ElementTree.SubElement(case, "skipped", message=_plain(one.said))
        else:
            ElementTree.SubElement(case, "system-out").text = _plain(f"{one.said} {one.next_step}".strip())
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _count(findings: Sequence[Finding], outcome: CheckOutcome) -> int:
    return sum(one.outcome is outcome for one in findings)


def _plain(text: str) -> str:
    """Without what XML can't hold, whatever a server has said."""
    return "".join(
        letter if letter >= " " or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
