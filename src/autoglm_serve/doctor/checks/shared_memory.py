"""Is /dev/shm large enough for engines that pass pictures and tensors through it?"""

from collections.abc import Iterator

from autoglm_serve.core.hardware import GIB
from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error, warning

_LEAST_BYTES = GIB


def check(facts: Facts) -> Iterator[Symptom]:
    host = facts.host
    if host is None or "vllm" not in host.packages:
        return
    why = "vLLM's processes and NCCL pass data through it, and die of a bus error where it is full."
    remedy = (
        "docker run --ipc=host … or --shm-size 8g; Kubernetes: an emptyDir with medium: Memory at /dev/shm"
    )
    if host.shm_bytes is None:
        yield error("There is no /dev/shm.", evidence="no such folder", why=why, remedy=remedy)
    elif host.shm_bytes < _LEAST_BYTES:
        size = f"{host.shm_bytes / 2**20:.0f} MiB"
        yield warning(f"/dev/shm has {size}.", evidence=f"statvfs: {size}", why=why, remedy=remedy)
