"""Is nothing ready yet?"""

from collections.abc import Iterator

from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, note


def check(facts: Facts) -> Iterator[Symptom]:
    status = facts.service.status if facts.service is not None else None
    for replica in status.replicas if status is not None else ():
        if replica.state is ReplicaState.STARTING:
            stage = replica.progress.stage if replica.progress else "no line of its log says how far it is"
            yield note(
                f"{replica.id} is starting.",
                evidence=stage,
                why="Requests for it wait.",
                remedy=f"autoglm logs --replica {replica.id} --follow",
            )
