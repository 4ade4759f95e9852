"""What differs between vLLM versions, as data. Each line was read from that release's source.

Where to look when a new one comes out: `profile_run` and `profile_cudagraph_memory` of the model runner,
the summary line at the end of `compile_or_warm_up_model`, and VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS.
"""

import re
from dataclasses import dataclass, replace

from autoglm_serve.core.engine_traits import EngineTraits

OLDEST = (0, 19)
"""The oldest that is served with; older ones can be planned for."""
NEWEST = (0, 33)
"""The newest release these facts were checked against; later ones are taken to be alike."""

HOLES = (
    ((0, 20), "CVE-2026-44222: text that spells a picture's placeholder ends the engine"),
    ((0, 24), "CVE-2026-54234: with speculative decoding, a token that there is not ends the engine"),
    ((0, 27), "CVE-2026-73558: a request may get a part of another's answer"),
)
"""The version that mends it, and what it is; docs/security.md has those that the gateway stops."""

COMPILES_SINCE = (0, 8)
"""torch.compile by default, inside the start-up profile."""
TAKES_KV_BYTES_SINCE = (0, 11)
"""--kv-cache-memory-bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """What one of vLLM's model runners does when it sizes its memory."""

    profiles_encoder: bool
    budgets_graphs: bool
    sampler_bytes_per_logit: float
    sampler_state_bytes_per_logit: float = 0.0
    counts_state: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """From this version on, until the next line."""

    since: tuple[int, int]
    dense: Runner
    mixed: Runner | None = None
    """Of models with experts or recurrent layers, where another runner has them."""
    ahead: Runner | None = None
    """Of `goes_ahead`."""
    goes_ahead: frozenset[str] = frozenset()
    """Architectures that the newer runner has before others of their kind."""
    ahead_quantized: bool = True
    """With quantised weights, too."""
    counts_collectives: bool = False
    passes_ahead: int = 2
    state_blocks: int = 1
    encoder_factor: float = 1.0
    """On the vision tower's memory."""
    source: str
    """Where in vLLM it is written."""


# Rows of logits: the older runner sorts a 32-bit copy for top-p, the newer one samples 16-bit ones directly.
_SORTS, _SAMPLES, _SAMPLES_WIDE = 38.4, 2.0, 10.0
_COUNTS = 4.125
"""Penalties: a 32-bit count and a bit of each vocabulary entry for each sequence."""

_OLD = Runner(profiles_encoder=True, budgets_graphs=False, sampler_bytes_per_logit=_SORTS)
_OLD_BUDGETS = Runner(profiles_encoder=True, budgets_graphs=True, sampler_bytes_per_logit=_SORTS)
_NEW = Runner(
    profiles_encoder=False,
    budgets_graphs=False,
    sampler_bytes_per_logit=_SAMPLES,
    sampler_state_bytes_per_logit=_COUNTS,
)
_NEW_COUNTS = replace(_NEW, profiles_encoder=True, counts_state=True)
_FIRST = frozenset({"Qwen3ForCausalLM"})
_EXPERTS_FIRST = frozenset({"DeepseekV2ForCausalLM", "GraniteMoeForCausalLM", "Qwen2MoeForCausalLM"})

RELEASES = (
    Release(
        since=(0, 6),
        dense=_OLD,
        counts_collectives=True,
        passes_ahead=1,
        encoder_factor=2.5,
        source="worker/worker.py: determine_num_available_blocks, the least of all workers; the first one "
        "samples. An image and a video go through the tower in one pass (model_runner.py: _dummy_run), in "
        "32 bits where positions are rotated; the factor is from one log",
    ),
    Release(
        since=(0, 8),
        dense=_OLD,
        counts_collectives=True,
        passes_ahead=1,
        source="v1/worker/gpu_worker.py: determine_available_memory",
    ),
    Release(
        since=(0, 11),
        dense=_OLD,
        passes_ahead=1,
        source="v1/worker/gpu_worker.py: init_device looks at what is free once NCCL is up",
    ),
    Release(
        since=(0, 20),
        dense=_OLD_BUDGETS,
        source="envs.py: VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS is on",
    ),
    Release(
        since=(0, 22),
        dense=_OLD_BUDGETS,
        ahead=_NEW,
        goes_ahead=_FIRST,
        ahead_quantized=False,
        source="config/vllm.py: DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES (vllm#39337), unless quantised",
    ),
    Release(
        since=(0, 24),
        dense=_OLD_BUDGETS,
        ahead=_NEW,
        goes_ahead=_FIRST,
        source="the same, for quantised weights too",
    ),
    Release(
        since=(0, 25),
        dense=_NEW,
        mixed=_OLD_BUDGETS,
        ahead=_NEW,
        goes_ahead=_EXPERTS_FIRST,
        source="config/vllm.py: use_v2_model_runner, for dense models; v1/worker/gpu/model_runner.py "
        "profiles neither tower nor graphs",
    ),
    Release(
        since=(0, 27),
        dense=_NEW_COUNTS,
        mixed=_OLD_BUDGETS,
        ahead=_NEW_COUNTS,
        goes_ahead=_EXPERTS_FIRST,
        source="utils/mem_utils.py: total_consumed is all that the GPU has less than before",
    ),
    Release(
        since=(0, 29),
        dense=Runner(
            profiles_encoder=True,
            budgets_graphs=True,
            sampler_bytes_per_logit=_SAMPLES_WIDE,
            sampler_state_bytes_per_logit=_COUNTS,
            counts_state=True,
        ),
        source="v1/worker/gpu/model_runner.py: profile_cudagraph_memory; _dummy_sampler_run runs twice, the "
        "second time in 32 bits",
    ),
)


def traits(version: str | None) -> EngineTraits:
    """The traits of an installed version; of the newest known one where none is installed."""
    number = parse(version) if version else NEWEST
    line = max(
        (line for line in RELEASES if line.since <= number), key=lambda line: line.since, default=RELEASES[0]
    )
    named = version or f"{NEWEST[0]}.{NEWEST[1]}"
    mixed = _traits(line, line.mixed, named, number) if line.mixed else None
    ahead = _traits(line, line.ahead, named, number) if line.ahead else None
    return replace(
        _traits(line, line.dense, named, number),
        mixed=mixed,
        ahead=ahead,
        goes_ahead=line.goes_ahead,
        ahead_quantized=line.ahead_quantized,
    )


def _traits(line: Release, runner: Runner, version: str, number: tuple[int, int]) -> EngineTraits:
    return EngineTraits(
        engine="vllm",
        version=version,
        pass_feeds_all=True,
        profiles_encoder=runner.profiles_encoder,
        budgets_graphs=runner.budgets_graphs,
        sampler_bytes_per_logit=runner.sampler_bytes_per_logit,
        sampler_state_bytes_per_logit=runner.sampler_state_bytes_per_logit,
        counts_state=runner.counts_state,
        counts_collectives=line.counts_collectives,
        passes_ahead=line.passes_ahead,
        compiles=number >= COMPILES_SINCE,
        takes_kv_bytes=number >= TAKES_KV_BYTES_SINCE,
        threads_by_environment=True,
        state_blocks=line.state_blocks,
        encoder_factor=line.encoder_factor,
        rules_of="" if number <= NEWEST else f"{NEWEST[0]}.{NEWEST[1]}",
    )


def holes(version: str) -> tuple[str, ...]:
    """Those that this version has."""
    return tuple(what for mended, what in HOLES if parse(version) < mended)


def parse(version: str) -> tuple[int, int]:
    """(major, minor) of a version such as 0.26.0 or 0.32.0+cpu; the newest known where it is unreadable."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else NEWEST
