"""`autoglm status` as a person reads it."""

from dataclasses import asdict
from typing import Any

from autoglm_serve.cli.status import render
from autoglm_serve.core.codec import from_plain
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.status import ServiceStatus
from tests.plan.worlds import chosen, planned


def replica(name: str, model: str, memory: MeasuredLedger | None) -> dict[str, Any]:
    return {
        "id": name,
        "model": model,
        "engine": "vllm",
        "state": "ready",
        "pid": 1,
        "port": 2,
        "gpus": [0],
        "in_flight": 0,
        "restarts": 0,
        "last_exit": None,
        "memory": asdict(memory) if memory else None,
    }


def status(*replicas: dict[str, Any]) -> ServiceStatus:
    ledger = chosen(planned("h200")).ledger
    assert ledger is not None
    said = {
        "url": "http://127.0.0.1:8000",
        "version": "0",
        "models": [{"names": ["phone"], "ledger": asdict(ledger)}, {"names": ["demo"], "ledger": None}],
        "replicas": list(replicas),
    }
    return from_plain(ServiceStatus, said)


def test_memory_is_shown_as_planned_and_as_reported() -> None:
    said = MeasuredLedger(weights_bytes=20 * 2**30, kv_cache_tokens=2_764_987)
    text = render(status(replica("r0", "phone", None), replica("r1", "phone", said)))
    assert text.count("Memory of the fullest GPU") == 1
    assert "20.0 GiB" in text
    assert "2,764,987" in text


def test_what_reports_nothing_has_no_table() -> None:
    text = render(status(replica("r0", "phone", None), replica("d0", "demo", None)))
    assert "Memory" not in text
