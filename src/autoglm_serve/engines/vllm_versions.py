"""What differs between vLLM versions, as data. Each line was read from that release's source.

Where to look when a new one comes out: `profile_run` and `profile_cudagraph_memory` of the model runner,
the summary line at the end of `compile_or_warm_up_model`, and VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS.
"""

import re
from dataclasses import dataclass

from autoglm_serve.core.engine_traits import EngineTraits

OLDEST = (0, 19)
NEWEST = (0, 33)
"""The newest release these facts were checked against; later ones are taken to be alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """From this version on, until the next line."""

    since: tuple[int, int]
    profiles_encoder: bool
    budgets_graphs: bool
    sampler_bytes_per_logit: float


# A row of logits takes 2 bytes in the newer model runner; the older one sorts a 32-bit copy for top-p.
_SORTS, _SAMPLES = 38.4, 2.0

RELEASES = (
    Release(since=(0, 19), profiles_encoder=True, budgets_graphs=False, sampler_bytes_per_logit=_SORTS),
    Release(since=(0, 20), profiles_encoder=True, budgets_graphs=True, sampler_bytes_per_logit=_SORTS),
    # 0.25: the second model runner becomes the default for dense models; it profiles neither of the two
    Release(since=(0, 25), profiles_encoder=False, budgets_graphs=False, sampler_bytes_per_logit=_SAMPLES),
    Release(since=(0, 27), profiles_encoder=True, budgets_graphs=False, sampler_bytes_per_logit=_SAMPLES),
    Release(since=(0, 29), profiles_encoder=True, budgets_graphs=True, sampler_bytes_per_logit=_SAMPLES),
)


def traits(version: str | None) -> EngineTraits:
    """The traits of an installed version; of the newest known one where none is installed."""
    number = parse(version) if version else NEWEST
    release = max(
        (line for line in RELEASES if line.since <= number), key=lambda line: line.since, default=None
    )
    line = release or RELEASES[0]
    return EngineTraits(
        engine="vllm",
        version=version or f"{NEWEST[0]}.{NEWEST[1]}",
        profiles_encoder=line.profiles_encoder,
        budgets_graphs=line.budgets_graphs,
        sampler_bytes_per_logit=line.sampler_bytes_per_logit,
    )


def parse(version: str) -> tuple[int, int]:
    """(major, minor) of a version such as 0.26.0 or 0.32.0+cpu; the newest known where it is unreadable."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else NEWEST
