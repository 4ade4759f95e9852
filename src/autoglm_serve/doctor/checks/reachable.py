"""Does the service answer at all?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error


def check(facts: Facts) -> Iterator[Symptom]:
    if facts.service is not None and facts.service.unreachable:
        yield error(
            f"Nothing answers at {facts.service.url}.",
            evidence=facts.service.unreachable,
            why="Clients are told that the connection is refused.",
            remedy="autoglm serve; where it runs, give its --host and --port. Others reach it where it "
            "listens wider than loopback: --host 0.0.0.0",
        )
