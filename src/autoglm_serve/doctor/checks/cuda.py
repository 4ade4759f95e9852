"""Does the driver run the CUDA that torch was built for?"""

import re
from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error

_BUILD = re.compile(r"\+cu(\d+)(\d)$")


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None or not host.gpus.cuda_version:
        return
    built = _BUILD.search(host.packages.get("torch", ""))
    if built is None:
        return
    wanted = (int(built[1]), int(built[2]))
    runs = tuple(int(part) for part in host.gpus.cuda_version.split(".")[:2])
    if wanted[0] > runs[0]:  # within a major version CUDA promises to run on an older driver
        yield error(
            f"torch was built for CUDA {wanted[0]}.{wanted[1]}, the driver runs {host.gpus.cuda_version}.",
            evidence=f"torch {host.packages['torch']}, driver {host.gpus.driver_version}",
            why="vLLM dies at its start: no kernel of it runs.",
            remedy="install a newer driver, or a vLLM whose torch is built for this one",
        )
