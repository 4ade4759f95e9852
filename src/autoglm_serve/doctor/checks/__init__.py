"""One file a check: a pure function of the facts that yields symptoms. `ALL` has them in the order in which
they are told: what stops everything first.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from autoglm_serve.doctor.checks import (
    buffering,
    clock,
    cuda,
    descriptors,
    disk,
    driver,
    engine_versions,
    gpu_memory,
    host_memory,
    hub,
    model,
    peers,
    port,
    proxy_variables,
    reachable,
    replicas,
    shared_memory,
    slow,
    starting,
)
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom

Check: TypeAlias = Callable[[Facts], Iterator[Symptom]]

ALL: tuple[Check, ...] = tuple(
    each.check
    for each in (
        reachable,
        replicas,
        driver,
        cuda,
        engine_versions,
        model,
        hub,
        port,
        gpu_memory,
        host_memory,
        disk,
        shared_memory,
        descriptors,
        proxy_variables,
        buffering,
        slow,
        clock,
        peers,
        starting,
    )
)
