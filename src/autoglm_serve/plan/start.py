"""What a plan takes beside the GPUs: main memory, disk, the download, and how long it is until it serves.

Estimates. Pure arithmetic on sizes; what the machine has is `core.hardware.Host`, where it was asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import GIB, Host
from autoglm_serve.core.plan import Plan
from autoglm_serve.plan.memory import gib

PROCESS_BYTES = int(2.5 * GIB)
"""Of one process of an engine with torch in it: the server, the engine's core, and each worker."""
IMAGE_CACHE_BYTES = 4 * GIB
"""Of processed images in a server that takes any (vLLM: mm_processor_cache_gb)."""
CACHE_BYTES = int(1.5 * GIB)
"""Of compiled graphs and kernels on disk."""
DOWNLOAD_BYTES_S = 12.5e6
"""100 Mbit/s, for a figure to scale from."""
READ_BYTES_S = 1.2e9
"""Weights from an ordinary NVMe disk to the GPU."""
IMPORTS_S, COMPILE_S, COMPILED_S, GRAPHS_S, REST_S = 22.0, 42.0, 6.0, 9.0, 15.0
"""Seconds of a start, measured on H200s with vLLM 0.26: 19 to 24 in imports, 33 to 54 compiling and 6 with
the graphs in the cache, 5 to 11 capturing; ready after 103 to 138 cold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimes:
    """Of all replicas together, started side by side."""

    host_bytes: int
    disk_bytes: int
    download_s: float
    cold_s: float
    """From the start to serving, weights on disk, nothing compiled."""
    warm_s: float


def start_of(facts: ModelFacts, plan: Plan) -> StartTimes:
    gpus = plan.tensor_parallel * plan.pipeline_parallel
    processes = 2 + (gpus if gpus > 1 else 0)
    images = IMAGE_CACHE_BYTES if facts.vision else 0
    eager = any(word.startswith("--enforce-eager") for word in plan.engine_args)
    read_s = facts.bytes / READ_BYTES_S
    rest_s = IMPORTS_S * (2 if gpus > 1 else 1) + read_s + (0 if eager else GRAPHS_S) + REST_S
    return StartTimes(
        host_bytes=plan.replicas * (processes * PROCESS_BYTES + images),
        disk_bytes=facts.bytes + CACHE_BYTES,
        download_s=facts.bytes / DOWNLOAD_BYTES_S,
        cold_s=rest_s + (0 if eager else COMPILE_S),
        warm_s=rest_s + (0 if eager else COMPILED_S),
    )


def lacking(start: StartTimes, host: Host | None) -> Iterator[str]:
    """What this machine has too little of, in words."""
    if host is None:
        return
    if start.host_bytes > host.free_bytes:
        yield (
            f"main memory may not do: the replicas take about {gib(start.host_bytes)} and "
            f"{gib(host.free_bytes)} are free; fewer replicas take less"
        )
    if host.disk_free_bytes is not None and start.disk_bytes > host.disk_free_bytes:
        yield (
            f"the disk may not do: the model and what is compiled take {gib(start.disk_bytes)} and "
            f"{gib(host.disk_free_bytes)} are free, unless the model is here already"
        )
