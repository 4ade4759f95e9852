"""Is the port ours to listen on?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error


def check(facts: Facts) -> Iterator[Symptom]:
    if facts.host is not None and facts.host.port_holder:
        yield error(
            f"Port {facts.host.port} is taken.",
            evidence=f"{facts.host.port_holder} listens there",
            why="`autoglm serve` would end at once.",
            remedy=f"end it, or autoglm serve --port {facts.host.port + 1}",
        )
