"""The plan for the embedded engine: how many replicas of llama.cpp a machine without a GPU carries. Pure."""

from autoglm_serve.core.plan import Plan

_MEMORY_SHARE = 0.5  # of what is free, for weights: the KV cache and everybody else need the rest
_WANTED_REPLICAS = 2  # one can die while the other serves


def plan_embedded(
    *,
    engine: str,
    cores: int,
    free_memory_bytes: int,
    model_bytes: int,
    replicas: int | None = None,
    threads: int | None = None,
    max_model_len: int | None = None,
    max_num_seqs: int | None = None,
    image_max_tokens: int | None = None,
    engine_args: tuple[str, ...] = (),
) -> Plan:
    """What is given stays; the rest follows from the cores and the free memory."""
    reasons = []
    if replicas is None:
        fitting = int(free_memory_bytes * _MEMORY_SHARE // max(model_bytes, 1))
        replicas = max(1, min(_WANTED_REPLICAS, fitting))
        reasons.append(
            f"{replicas} replicas, so that one serves while another is away"
            if replicas > 1
            else f"1 replica: a second copy of {model_bytes / 2**30:.1f} GiB would take more than half of "
            f"the {free_memory_bytes / 2**30:.1f} GiB of memory that is free"
        )
    if threads is None:
        threads = max(1, cores // replicas)
        reasons.append(f"{threads} thread{'s' * (threads > 1)} each, of {cores} cores")
    return Plan(
        engine=engine,
        replicas=replicas,
        threads=threads,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        image_max_tokens=image_max_tokens,
        engine_args=engine_args,
        reasons=tuple(reasons),
    )
