"""Do replicas run, and what did they die of?"""

from collections.abc import Iterator

from autoglm_serve.core.replica import ExitCause, ReplicaState
from autoglm_serve.core.status import ReplicaReport
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error, warning

_OFTEN = 3
_WHY: dict[ExitCause | None, str] = {
    ExitCause.OUT_OF_MEMORY: "The model, its cache and what it works with do not fit beside each other.",
}


def check(facts: Facts) -> Iterator[Symptom]:
    status = facts.service.status if facts.service is not None else None
    for replica in status.replicas if status is not None else ():
        if replica.state is ReplicaState.FAILED:
            yield _down(replica)
        elif replica.last_exit is not None and replica.restarts >= _OFTEN:
            yield warning(
                f"{replica.id} has been started again {replica.restarts} times.",
                evidence=replica.last_exit.summary,
                why="Requests go on with others meanwhile, in less room.",
                remedy=replica.last_exit.remedy or f"autoglm logs --replica {replica.id}",
            )


def _down(replica: ReplicaReport) -> Symptom:
    last = replica.last_exit
    return error(
        f"{replica.id} is down and is not started again.",
        evidence=last.summary if last else "its state is failed",
        why=_WHY.get(last.cause if last else None, "The same start can only end the same way."),
        remedy=(last.remedy if last else "") or f"autoglm logs --replica {replica.id}",
    )
