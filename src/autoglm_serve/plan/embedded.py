"""The plan for the embedded engine: how many replicas of llama.cpp a machine carries, and how large. Pure.

Memory decides: all of it is taken at the start, so it is known beforehand from the file's header. Speed is
not predicted, because it follows from the processor in ways that no table knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from autoglm_serve.core.ledger import HostLedger
from autoglm_serve.core.plan import Placement, Plan
from autoglm_serve.plan.memory import gib

_SHARE = 0.8  # of what is free, for everything of ours: everybody else needs the rest
_WANTED_REPLICAS = 2  # one can die while the other serves
_FEWER_SLOTS = (2, 1)
_SHORTER_CONTEXTS = (8_192, 4_096)
_BATCH = 512  # llama.cpp's n_ubatch
_PROCESS_BYTES = 100 * 2**20  # Python and llama.cpp themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class HostModel:
    """What a GGUF's header says that memory follows from; 0 where it does not say it."""

    weights_bytes: int
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of 16 bits."""
        return self.layers * self.kv_heads * self.head_dim * 2 * 2

    @property
    def work_bytes(self) -> int:
        """Logits and hidden states of a batch: llama.cpp reports 304 MiB for 152,000 words."""
        return _BATCH * (self.vocabulary + 8 * self.hidden) * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedHost:
    """The machine that it is for."""

    cores: int
    total_bytes: int
    free_bytes: int
    """Memory that programs could take now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is asked for, and what is taken where nothing is."""

    context_tokens: int
    """Of one request, as long as memory allows."""
    slots: int
    prompt_cache_bytes: int
    context_is_asked: bool = False
    slots_are_asked: bool = False
    replicas: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class _Size:
    replicas: int
    slots: int
    context: int


def plan_embedded(
    engine: str,
    model: HostModel,
    host: EmbeddedHost,
    wishes: Wishes,
    *,
    image_max_tokens: int | None = None,
    engine_args: tuple[str, ...] = (),
) -> Plan:
    """What is asked for stays; the rest is the most that fits into the memory that is free.

    Never refuses: a plan that needs more than there is says so by its `host`.
    """
    sizes = list(_sizes(wishes))
    room_bytes = _SHARE * host.free_bytes
    size = next(
        (one for one in sizes if _ledger(model, host, wishes, one).needed_bytes <= room_bytes), sizes[-1]
    )
    ledger = _ledger(model, host, wishes, size)
    threads = wishes.threads or max(1, host.cores // size.replicas)
    return Plan(
        engine=engine,
        placements=(Placement(),) * size.replicas,
        threads=threads,
        max_model_len=size.context,
        max_num_seqs=size.slots,
        image_max_tokens=image_max_tokens,
        host=ledger,
        engine_args=engine_args,
        reasons=tuple(_reasons(ledger, size, sizes[0], wishes, threads)),
    )


WAYS_OUT = "a smaller quantisation of it, fewer --replicas, a lower --max-num-seqs or --max-model-len"


def why_too_large(plan: Plan) -> str:
    """By how much the plan is more than the whole machine; empty where it is not. What others hold is not
    counted: they may leave, and files that are mapped make way."""
    host = plan.host
    if host is None or host.needed_bytes <= host.total_bytes:
        return ""
    return (
        f"needs {gib(host.needed_bytes)} of memory and this machine has {gib(host.total_bytes)}: "
        f"{gib(host.needed_bytes - host.total_bytes)} too little"
    )


def _sizes(wishes: Wishes) -> Iterator[_Size]:
    """What is tried, the most generous first."""
    replicas = [wishes.replicas] if wishes.replicas else list(range(_WANTED_REPLICAS, 0, -1))
    slots = [wishes.slots, *(n for n in _FEWER_SLOTS if n < wishes.slots and not wishes.slots_are_asked)]
    longest = wishes.context_tokens
    contexts = [longest, *(n for n in _SHORTER_CONTEXTS if n < longest and not wishes.context_is_asked)]
    yield from (_Size(count, slots[0], contexts[0]) for count in replicas)
    yield from (_Size(replicas[-1], fewer, contexts[0]) for fewer in slots[1:])
    yield from (_Size(replicas[-1], slots[-1], shorter) for shorter in contexts[1:])


def _ledger(model: HostModel, host: EmbeddedHost, wishes: Wishes, size: _Size) -> HostLedger:
    tokens = size.slots * size.context
    return HostLedger(
        cores=host.cores,
        total_bytes=host.total_bytes,
        free_bytes=host.free_bytes,
        replicas=size.replicas,
        weights_bytes=model.weights_bytes,
        kv_cache_bytes=tokens * model.kv_bytes_per_token,
        work_bytes=model.work_bytes + wishes.prompt_cache_bytes + _PROCESS_BYTES,
        kv_cache_tokens=tokens,
    )


def _reasons(ledger: HostLedger, size: _Size, wanted: _Size, wishes: Wishes, threads: int) -> Iterator[str]:
    free = f"the {gib(ledger.free_bytes)} of memory that are free"
    if not wishes.replicas:
        yield (
            f"{size.replicas} replicas, so that one serves while another is away"
            if size.replicas > 1
            else f"1 replica: another {gib(ledger.replica_bytes)} would be too much for {free}"
        )
    if (size.slots, size.context) != (wanted.slots, wanted.context):
        yield f"{size.slots} at a time with {size.context:,} tokens each: more does not fit {free}"
    if not wishes.threads:
        yield f"{threads} thread{'s' * (threads > 1)} each, of {ledger.cores} cores"
    if ledger.needed_bytes > ledger.free_bytes:
        yield f"it needs {gib(ledger.needed_bytes - ledger.free_bytes)} more than is free now"
