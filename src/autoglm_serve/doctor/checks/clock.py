"""Do the clocks agree?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, warning

_MOST_S = 30.0


def check(facts: Facts) -> Iterator[Symptom]:
    ahead_s = facts.service.clock_ahead_s if facts.service is not None else None
    if ahead_s is not None and abs(ahead_s) > _MOST_S:
        yield warning(
            f"The service's clock is {abs(ahead_s):.0f} s {'fast' if ahead_s > 0 else 'slow'} against ours.",
            evidence="the Date of an answer",
            why="Logs of two machines do not fit together, and keys and certificates expire at other times.",
            remedy="timedatectl set-ntp true on both",
        )
