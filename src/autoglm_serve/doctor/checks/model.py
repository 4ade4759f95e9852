"""Is the model there, and can it be read?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error


def check(facts: Facts) -> Iterator[Symptom]:
    if facts.host is not None and (problem := facts.host.model_problem) is not None:
        yield error(
            problem.what,
            evidence=problem.why or "the files were looked at as `autoglm serve` would",
            why="Nothing can be served without it.",
            remedy=problem.next_step,
        )
