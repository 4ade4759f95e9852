"""Is there main memory for what runs on the processor?"""

from collections.abc import Iterator

from autoglm_serve.core.hardware import GIB
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, warning

_LEAST_BYTES = GIB


def check(facts: Facts) -> Iterator[Symptom]:
    host = facts.host
    if host is not None and host.memory_free_bytes < _LEAST_BYTES:
        yield warning(
            f"{host.memory_free_bytes / GIB:.1f} GiB of main memory are free.",
            evidence=f"of {host.memory_bytes / GIB:.0f} GiB",
            why="The kernel ends the largest process when it runs out: an engine, in all likelihood.",
            remedy="end what else runs, or serve fewer replicas: --replicas 1",
        )
