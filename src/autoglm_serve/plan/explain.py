"""A decision as a person reads it: the plan, its ledger, its speed, what lost and what would change it."""

from collections.abc import Iterator, Sequence

from autoglm_serve.core.engine_traits import EngineTraits
from autoglm_serve.core.hardware import GpuSource
from autoglm_serve.core.ledger import (
    TERMS,
    HostLedger,
    Ledger,
    MeasuredLedger,
    Predicted,
    term_bytes,
)
from autoglm_serve.core.model import Capability
from autoglm_serve.core.plan import Member, Plan
from autoglm_serve.core.workload import Workload
from autoglm_serve.plan.choose import Decision
from autoglm_serve.plan.memory import gib
from autoglm_serve.plan.reasons import Offer
from autoglm_serve.plan.start import StartTimes

LABELS = {
    "weights": "weights",
    "peak_activation": "peak activation",
    "non_torch": "libraries",
    "cuda_graphs": "CUDA graphs",
    "kv_cache": "KV cache",
}
SHOWN_LOSERS = 6


def short(decision: Decision) -> str:
    """The plan and its first reason, in a few lines."""
    return "\n".join([*_head(decision), *_warnings(decision)])


def full(decision: Decision) -> str:
    """Everything, for --explain."""
    sections = [list(_head(decision))]
    plan = decision.chosen
    if plan is not None:
        sections.append(_titled("Why", [f"- {reason}" for reason in plan.reasons]))
        if plan.ledger is not None:
            sections.append(list(ledger_table(plan.ledger)))
        if plan.predicted is not None:
            sections.append(list(_speed(decision, plan.predicted)))
        if decision.start is not None:
            sections.append(list(_beside(decision.start)))
    sections.append(_titled("What lost", list(_losers(decision))))
    sections.append(_titled("What one knob would change", _offers(decision.sensitivities)))
    heading = "What would fit" if plan is None else "What would be faster"
    sections.append(_titled(heading, _offers(decision.offers)))
    sections.append(list(_warnings(decision)))
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def embedded(member: Member, *, everything: bool) -> str:
    """The plan of an engine that runs on the processor."""
    plan, host = member.plan, member.plan.host
    assert host is not None
    copies = "1 replica" if plan.replicas == 1 else f"{plan.replicas} replicas"
    copies += f" of {plan.threads} thread{'s' * (plan.threads != 1)}"
    sees = ", sees" if Capability.VISION in member.capabilities else ""
    memory = f"{gib(host.total_bytes)} of memory, {gib(host.free_bytes)} free"
    limits = f"context {plan.max_model_len:,}, {plan.max_num_seqs} sequences"
    sections = [
        [
            f"model     {member.files.reference} ({gib(host.weights_bytes)}{sees})",
            f"hardware  {host.cores} cores, {memory} (found here)",
            f"plan      {plan.engine}, {copies}; {limits}",
        ]
    ]
    if everything:
        sections.append(_titled("Why", [f"- {reason}" for reason in plan.reasons]))
        sections.append(list(_host_table(host)))
        sections.append(["Speed is not predicted: it follows from the processor. Serve it and see."])
    return "\n\n".join("\n".join(lines) for lines in sections)


def _host_table(host: HostLedger) -> Iterator[str]:
    yield "Memory of one replica (estimated from the file's header)"
    for label, size in (
        ("weights", host.weights_bytes),
        ("KV cache", host.kv_cache_bytes),
        ("buffers", host.work_bytes),
        ("together", host.replica_bytes),
    ):
        yield f"  {label:<16}{gib(size):>12}"
    yield f"  {'KV tokens':<16}{host.kv_cache_tokens:>12,}"
    yield f"  {f'all {host.replicas}':<16}{gib(host.needed_bytes):>12}"
    yield f"  {'free now':<16}{gib(host.free_bytes):>12}"


def _head(decision: Decision) -> Iterator[str]:
    hardware, facts = decision.hardware, decision.facts
    where = "from the table, nothing was probed" if hardware.source is GpuSource.TABLE else "found here"
    count = facts.parameters
    size = (
        f"{f'{count / 1e9:.1f} B' if count > 1e9 else f'{count / 1e6:.1f} M'} parameters, {gib(facts.bytes)}"
    )
    yield f"model     {facts.reference} ({facts.architecture}; {size})"
    yield f"hardware  {hardware.summary} ({where})"
    yield f"rules     {_rules(decision.traits)}"
    yield f"plan      {summary(decision.chosen) if decision.chosen else 'none: ' + decision.problem}"


def _rules(traits: EngineTraits) -> str:
    """Of which version of the engine, and why of that one."""
    if traits.rules_of:
        return f"{traits.engine} {traits.rules_of}, the newest known, taken for {traits.version}"
    return f"{traits.engine} {traits.version} ({traits.origin})"


def _beside(start: StartTimes) -> Iterator[str]:
    yield "Beside the GPUs (estimated)"
    yield f"  {'main memory':<16}{gib(start.host_bytes):>12}"
    yield f"  {'disk':<16}{gib(start.disk_bytes):>12}"
    yield f"  {'download':<16}{_minutes(start.download_s):>12} at 100 Mbit/s"
    yield f"  {'first start':<16}{_minutes(start.cold_s):>12}, later ones {_minutes(start.warm_s)}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def summary(plan: Plan) -> str:
    """vLLM, 2 replicas of one GPU each."""
    gpus = plan.tensor_parallel * plan.pipeline_parallel
    replicas = "1 replica" if plan.replicas == 1 else f"{plan.replicas} replicas"
    each = " each" if plan.replicas > 1 else ""
    if gpus == 1:
        spread = f"of one GPU{each}"
    else:
        parts = [
            f"tensor parallel {plan.tensor_parallel}" if plan.tensor_parallel > 1 else "",
            f"pipeline parallel {plan.pipeline_parallel}" if plan.pipeline_parallel > 1 else "",
        ]
        spread = f"of {gpus} GPUs{each} ({', '.join(filter(None, parts))})"
    quantized = f", {plan.quantization}" if plan.quantization else ""
    limits = f"context {plan.max_model_len:,}, {plan.max_num_seqs} sequences" if plan.max_model_len else ""
    return f"{plan.engine}, {replicas} {spread}{quantized}; {limits}"


def ledger_table(ledger: Ledger, measured: MeasuredLedger | None = None) -> Iterator[str]:
    """Memory of the fullest GPU, term by term; what the engine measured beside it where that is known."""
    yield "Memory of the fullest GPU" + (f" ({ledger.badge})" if measured is None else "")
    if measured is not None:
        yield f"  {'':<16}{ledger.badge:>12}{'measured':>12}"
    for term in TERMS:
        said = getattr(measured, f"{term}_bytes") if measured else None
        beside = f"{gib(said):>12}" if said is not None else ""
        yield f"  {LABELS[term]:<16}{gib(term_bytes(ledger, term)):>12}{beside}"
    if ledger.context_bytes:
        yield f"  {'CUDA context':<16}{gib(ledger.context_bytes):>12}"
    if ledger.other_bytes:
        yield f"  {'not ours':<16}{gib(ledger.other_bytes):>12}"
    yield f"  {'left free':<16}{gib(ledger.free_bytes):>12}"
    yield f"  {'of':<16}{gib(ledger.total_bytes):>12}"
    tokens = f"{ledger.kv_cache_tokens:,}"
    beside = f"{measured.kv_cache_tokens:>12,}" if measured and measured.kv_cache_tokens else ""
    yield f"  {'KV tokens':<16}{tokens:>12}{beside}"


def _speed(decision: Decision, predicted: Predicted) -> Iterator[str]:
    load = decision.request.workload
    yield f"Agent load ({predicted.badge}; {_load(decision)})"
    sessions = f"{predicted.sessions} session{'s' * (predicted.sessions > 1)}"
    yield f"  {sessions:<16}{predicted.steps_per_s:>8.2f} steps/s   TTFT {predicted.ttft_s:>6.2f} s   " + (
        f"TPOT {predicted.tpot_s * 1e3:>6.1f} ms"
    )
    alone = predicted.single_step_s(load.output_tokens)
    yield f"  {'1 session':<16}{1 / alone:>8.2f} steps/s   TTFT {predicted.single_ttft_s:>6.2f} s   " + (
        f"TPOT {predicted.single_tpot_s * 1e3:>6.1f} ms"
    )
    if predicted.steps_range_per_s and predicted.ttft_range_s:
        (low, high), (soon, late) = predicted.steps_range_per_s, predicted.ttft_range_s
        yield f"  {'may turn out':<16}{low:.2f} to {high:.2f} steps/s, TTFT {soon:.2f} to {late:.2f} s"


def _load(decision: Decision) -> str:
    load = decision.request.workload
    images = load.images if decision.facts.vision else 0
    picture = f"a {load.image_width_px}x{load.image_height_px} screenshot, " if images == 1 else ""
    picture = f"{images} images of {load.image_width_px}x{load.image_height_px}, " if images > 1 else picture
    usual = Workload(sessions=load.sessions)
    own = load.fresh_tokens != usual.fresh_tokens or load.shared_tokens != usual.shared_tokens
    text = f"{load.shared_tokens + load.fresh_tokens:,} tokens of text, {load.shared_tokens:,} cached, "
    think = f", {load.think_s:g} s between steps" if load.think_s else ""
    return f"{picture}{text if own else ''}{load.output_tokens} tokens out{think}"


def _losers(decision: Decision) -> Iterator[str]:
    for rejected in decision.rejected[:SHOWN_LOSERS]:
        speed = f"{rejected.predicted.steps_per_s:6.2f} steps/s" if rejected.predicted else " " * 14
        yield f"- {rejected.name:<14}{speed}  {rejected.reason}"
    hidden = len(decision.rejected) - SHOWN_LOSERS
    if hidden > 0:
        yield f"- and {hidden} more (--json lists all)"


def _offers(offers: Sequence[Offer]) -> list[str]:
    return [f"- {offer.change}: {offer.effect}" for offer in offers]


def _warnings(decision: Decision) -> Iterator[str]:
    yield from (f"note      {warning}" for warning in decision.warnings)


def _titled(title: str, lines: list[str]) -> list[str]:
    return [title, *lines] if lines else []
