"""Who else holds memory on the GPUs?"""

from collections.abc import Iterator

from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, warning
from autoglm_serve.probe.gpus import BUSY_BYTES


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None:
        return
    ours = _gpus_of(facts.service.status) if facts.service and facts.service.status else frozenset[int]()
    for gpu in host.hardware.gpus:
        used = gpu.total_bytes - gpu.free_bytes
        if gpu.index in ours or used <= BUSY_BYTES:
            continue
        who = ", ".join(f"{process.name or 'pid'} {process.pid}" for process in gpu.processes)
        yield warning(
            f"Somebody holds {used / GIB:.1f} GiB of GPU {gpu.index}.",
            evidence=who or "nvidia-smi; a container does not show whose process it is",
            why="The plan gives replicas what is free now: less, or none.",
            remedy="end that program, or leave the GPU out: CUDA_VISIBLE_DEVICES",
        )


def _gpus_of(status: ServiceStatus) -> frozenset[int]:
    return frozenset(gpu for replica in status.replicas for gpu in replica.gpus)
