"""A first start compiles, and vLLM counts the compiler's scratch as if serving took it."""

from dataclasses import replace

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import Badge, Expectation, MeasuredLedger, Subject
from autoglm_serve.plan.calibration import held_against, refit
from autoglm_serve.plan.request import Pins
from tests.plan.worlds import chosen, planned

HERE = replace(Constants(), measured_here=True, badge=Badge.CALIBRATED)


def test_a_roomy_plan_says_that_its_first_start_has_less() -> None:
    plan = chosen(planned("h200"))
    assert plan.ledger is not None
    assert plan.ledger.cold_bytes > GIB // 2
    assert any("smaller by that until the next start" in reason for reason in plan.reasons)
    assert plan.kv_cache_memory_bytes is None


def test_of_limits_that_fit_those_that_survive_a_first_start_are_taken() -> None:
    """Fewer sequences leave room for one request of full length even then."""
    plan = chosen(planned("rtx4090/28"))
    assert plan.ledger is not None
    needed = (plan.max_model_len or 0) * plan.ledger.kv_cache_bytes // plan.ledger.kv_cache_tokens
    assert plan.ledger.kv_cache_bytes - plan.ledger.cold_bytes >= needed


def test_a_tight_plan_says_that_it_may_be_started_twice() -> None:
    plan = chosen(planned("rtx4090"))
    assert any("started once more, with the graphs compiled" in reason for reason in plan.reasons)


def test_a_tight_plan_on_a_machine_that_has_measured_hands_the_engine_its_cache() -> None:
    plan = chosen(planned("rtx4090", constants=HERE))
    assert plan.ledger is not None
    assert plan.kv_cache_memory_bytes is not None
    assert 0 < plan.kv_cache_memory_bytes < plan.ledger.kv_cache_bytes
    assert any("outright" in reason for reason in plan.reasons)


def test_a_pinned_share_is_left_to_the_engine() -> None:
    pins = Pins(gpu_memory_utilization=0.95)
    assert chosen(planned("rtx4090", constants=HERE, pins=pins)).kv_cache_memory_bytes is None


def test_nothing_is_learnt_from_a_start_that_compiled() -> None:
    plan = chosen(planned("h200"))
    assert plan.ledger is not None
    expected = Expectation(
        subject=Subject(gpu="h200", driver="", engine="vllm 0.33", model="m"),
        gpus_per_replica=1,
        ledger=plan.ledger,
    )
    warm = MeasuredLedger(peak_activation_bytes=GIB, kv_cache_tokens=1)
    assert held_against(expected, warm, None) is not None
    assert held_against(expected, replace(warm, compiled=True), None) is None


def test_what_is_consumed_beside_the_weights_is_learnt() -> None:
    """Newer releases report the two as one figure."""
    plan = chosen(planned("h200"))
    assert plan.ledger is not None
    expected = Expectation(
        subject=Subject(gpu="h200", driver="", engine="vllm 0.33", model="m"),
        gpus_per_replica=1,
        ledger=plan.ledger,
    )
    more = plan.ledger.non_torch_bytes + GIB
    said = MeasuredLedger(
        weights_bytes=10 * GIB, consumed_bytes=10 * GIB + more, peak_activation_bytes=GIB, kv_cache_tokens=1
    )
    kept = held_against(expected, said, None)
    assert kept is not None
    assert refit(Constants(), [kept]).non_torch_bytes == Constants().non_torch_bytes + GIB
