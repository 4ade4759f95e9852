"""Can GPUs reach each other directly?"""

from collections.abc import Iterator

from autoglm_serve.core.hardware import Link
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, note


def check(facts: Facts) -> Iterator[Symptom]:
    host = facts.host
    if host is None or len(host.hardware.gpus) < 2:
        return
    everybody = tuple(gpu.index for gpu in host.hardware.gpus)
    if host.hardware.weakest_link(everybody) is Link.HOST:
        yield note(
            "GPUs here reach each other through main memory.",
            evidence=f"the driver allows no peer access between some of {len(everybody)} GPUs",
            why="Tensor parallelism is slow over such links; replicas are not concerned.",
            remedy="let the plan choose (autoglm plan says why); IOMMU off or a driver with P2P allows it",
        )
