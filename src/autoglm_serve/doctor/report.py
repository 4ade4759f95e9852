"""Symptoms as text and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from autoglm_serve.doctor.symptom import Severity, Symptom


def text(symptoms: Sequence[Symptom], looked_at: str, checks: int) -> str:
    if not symptoms:
        return f"Nothing is wrong with {looked_at} ({checks} checks)."
    told = [
        f"{symptom.severity}: {symptom.what}\n"
        f"  seen:  {symptom.evidence}\n"
        f"  why:   {symptom.why}\n"
        f"  next:  {symptom.remedy}"
        for symptom in sorted(symptoms, key=lambda each: list(Severity).index(each.severity))
    ]
    counts = [(each, sum(symptom.severity is each for symptom in symptoms)) for each in Severity]
    return "\n\n".join(told) + "\n\n" + _summary(counts, looked_at)


def _summary(counts: Sequence[tuple[Severity, int]], looked_at: str) -> str:
    found = ", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts if count)
    return f"{looked_at}: {found}."


def as_json(symptoms: Sequence[Symptom], looked_at: str) -> str:
    told = {"looked_at": looked_at, "symptoms": [asdict(symptom) for symptom in symptoms]}
    return json.dumps(told, ensure_ascii=False, indent=2)
