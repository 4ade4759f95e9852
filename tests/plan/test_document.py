"""The decision as JSON and as text."""

import json

from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.plan import explain
from autoglm_serve.plan.document import SCHEMA, document
from autoglm_serve.plan.request import Pins
from tests.plan.worlds import chosen, planned


def test_the_document_is_json_and_complete() -> None:
    decision = planned("h200:2")
    said = json.loads(json.dumps(document(decision, ("vllm", "serve"), {"A": "b"})))
    assert said["schema"] == SCHEMA
    assert said["model"]["reference"] == "zai-org/AutoGLM-Phone-9B"
    assert len(said["hardware"]["gpus"]) == 2
    assert said["chosen"]["argv"] == ["vllm", "serve"]
    assert set(said["ledger"]) >= {
        *("weights", "peak_activation", "non_torch", "cuda_graphs", "kv_cache", "free", "kv_cache_tokens"),
        "badge",
    }
    assert set(said["predicted"]) >= {"steps_per_s", "ttft_s", "tpot_s", "badge"}
    assert {entry["plan"] for entry in said["rejected"]} == {"1x TP2", "1x PP2"}


def test_the_terms_of_a_ledger_add_up_to_the_gpu() -> None:
    said = document(planned("rtx4090:2"))["ledger"]
    terms = ("weights", "peak_activation", "non_torch", "cuda_graphs", "kv_cache", "context", "other", "free")
    assert sum(said[term] for term in terms) == said["total"]


def test_no_plan_is_a_document_too() -> None:
    said = document(planned("rtx3060"))
    assert said["chosen"] is None
    assert said["ledger"] is None
    assert "does not fit" in said["problem"]
    assert said["offers"]


def test_the_explanation_has_every_section() -> None:
    text = explain.full(planned("h200:2"))
    for title in (
        "Why",
        "Memory of the fullest GPU",
        "Agent load",
        "What lost",
        "What one knob would change",
    ):
        assert title in text
    assert "estimated" in text


def test_an_explanation_without_a_plan_says_what_would_fit() -> None:
    text = explain.full(planned("l4"))
    assert "plan      none: " in text
    assert "What would fit" in text


def test_predicted_and_measured_stand_side_by_side() -> None:
    ledger = chosen(planned("h200")).ledger
    assert ledger is not None
    measured = MeasuredLedger(weights_bytes=20 * 2**30, kv_cache_tokens=2_764_987)
    text = "\n".join(explain.ledger_table(ledger, measured))
    assert "20.0 GiB" in text
    assert "2,764,987" in text


def test_a_long_list_of_losers_is_cut() -> None:
    decision = planned("h200:8")
    assert len(decision.rejected) > explain.SHOWN_LOSERS
    assert f"and {len(decision.rejected) - explain.SHOWN_LOSERS} more" in explain.full(decision)


def test_a_parallel_plan_is_named_in_words() -> None:
    plan = chosen(planned("h200:4", pins=Pins(tensor_parallel=2)))
    assert explain.summary(plan).startswith("vllm, 2 replicas of 2 GPUs each (tensor parallel 2)")
