"""A decision as JSON, for programs. The schema is versioned and described in docs/plan-schema.md.

A change that could break a reader raises SCHEMA; a new key does not.
"""

from collections.abc import Mapping
from typing import Any

from autoglm_serve.core.hardware import Hardware
from autoglm_serve.core.ledger import TERMS, Badge, Ledger, Predicted, term_bytes
from autoglm_serve.core.plan import Member, Plan
from autoglm_serve.plan.choose import Decision
from autoglm_serve.plan.start import StartTimes

SCHEMA = 1


def document(
    decision: Decision, argv: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The whole decision. `argv` and `env` are the first replica's, made by the engine's adapter."""
    plan, facts = decision.chosen, decision.facts
    return {
        "schema": SCHEMA,
        "model": {
            "reference": facts.reference,
            "architecture": facts.architecture,
            "known_architecture": facts.known,
            "parameters": facts.parameters,
            "bytes": facts.bytes,
            "quantization": facts.quantization,
            "from_headers": facts.from_headers,
        },
        "hardware": _hardware(decision.hardware),
        "goal": str(decision.request.goal),
        "engine_version": decision.traits.version,
        "engine_version_origin": decision.traits.origin,
        "chosen": None if plan is None else {**_plan(plan), "argv": list(argv), "env": dict(env or {})},
        "problem": decision.problem or None,
        "reasons": list(plan.reasons) if plan else [],
        "ledger": _ledger(plan.ledger) if plan and plan.ledger else None,
        "predicted": _predicted(plan.predicted) if plan and plan.predicted else None,
        "start": None if decision.start is None else _start(decision.start),
        "rejected": [
            {
                "plan": rejected.name,
                "reason": rejected.reason,
                "predicted": _predicted(rejected.predicted) if rejected.predicted else None,
            }
            for rejected in decision.rejected
        ],
        "offers": [{"change": offer.change, "effect": offer.effect} for offer in decision.offers],
        "sensitivities": [{"change": o.change, "effect": o.effect} for o in decision.sensitivities],
        "warnings": list(decision.warnings),
    }


def embedded_document(
    member: Member, warnings: tuple[str, ...], argv: tuple[str, ...], env: Mapping[str, str]
) -> dict[str, Any]:
    """The plan of an engine that runs on the processor, under the same keys."""
    plan, host = member.plan, member.plan.host
    assert host is not None
    return {
        "schema": SCHEMA,
        "model": {"reference": member.files.reference, "bytes": host.weights_bytes, "from_headers": True},
        "hardware": {
            "source": "host",
            "cores": host.cores,
            "total_bytes": host.total_bytes,
            "free_bytes": host.free_bytes,
            "gpus": [],
            "links": [],
        },
        "goal": None,
        "engine_version": None,
        "engine_version_origin": None,
        "chosen": {**_plan(plan), "argv": list(argv), "env": dict(env)},
        "problem": None,
        "reasons": list(plan.reasons),
        "ledger": {
            "weights": host.weights_bytes,
            "kv_cache": host.kv_cache_bytes,
            "work": host.work_bytes,
            "free": host.free_bytes - host.needed_bytes,
            "total": host.total_bytes,
            "kv_cache_tokens": host.kv_cache_tokens,
            "badge": str(Badge.ESTIMATED),
        },
        "predicted": None,
        "start": None,
        "needed": None,
        "rejected": [],
        "offers": [],
        "sensitivities": [],
        "warnings": list(warnings),
    }


def _hardware(hardware: Hardware) -> dict[str, Any]:
    return {
        "source": str(hardware.source),
        "driver": hardware.driver or None,
        "cuda": hardware.cuda or None,
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.title,
                "total_bytes": gpu.total_bytes,
                "free_bytes": gpu.free_bytes,
                "compute_capability": ".".join(map(str, gpu.spec.compute_capability)),
            }
            for gpu in hardware.gpus
        ],
        "links": [{"gpus": [a, b], "link": str(link)} for a, b, link in hardware.links],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "engine": plan.engine,
        "tensor_parallel": plan.tensor_parallel,
        "pipeline_parallel": plan.pipeline_parallel,
        "replicas": plan.replicas,
        "threads": plan.threads,
        "gpu_groups": [list(group) for group in plan.gpu_groups],
        "dtype": plan.dtype,
        "quantization": plan.quantization,
        "max_model_len": plan.max_model_len,
        "max_num_seqs": plan.max_num_seqs,
        "max_num_batched_tokens": plan.max_num_batched_tokens,
        "gpu_memory_utilization": plan.gpu_memory_utilization,
        "kv_cache_memory_bytes": plan.kv_cache_memory_bytes,
        "max_pixels": plan.max_pixels,
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    terms = {term: term_bytes(ledger, term) for term in TERMS}
    return {
        **terms,
        "context": ledger.context_bytes,
        "other": ledger.other_bytes,
        "free": ledger.free_bytes,
        "unprofiled": ledger.unprofiled_bytes,
        "cold": ledger.cold_bytes,
        "total": ledger.total_bytes,
        "kv_cache_tokens": ledger.kv_cache_tokens,
        "badge": str(ledger.badge),
    }


def _predicted(predicted: Predicted) -> dict[str, Any]:
    return {
        "sessions": predicted.sessions,
        "steps_per_s": round(predicted.steps_per_s, 3),
        "ttft_s": round(predicted.ttft_s, 4),
        "tpot_s": round(predicted.tpot_s, 6),
        "single_ttft_s": round(predicted.single_ttft_s, 4),
        "single_tpot_s": round(predicted.single_tpot_s, 6),
        "steps_range_per_s": _range(predicted.steps_range_per_s),
        "ttft_range_s": _range(predicted.ttft_range_s),
        "badge": str(predicted.badge),
    }


def _range(found: tuple[float, float] | None) -> list[float] | None:
    return None if found is None else [round(end, 4) for end in found]


def _start(start: StartTimes) -> dict[str, Any]:
    return {
        "host_bytes": start.host_bytes,
        "disk_bytes": start.disk_bytes,
        "cold_s": round(start.cold_s, 1),
        "warm_s": round(start.warm_s, 1),
    }
