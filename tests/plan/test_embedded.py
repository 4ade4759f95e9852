"""The embedded engine's plan: the most that memory allows, and by how much it is too much."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import HostLedger
from autoglm_serve.core.plan import Plan
from autoglm_serve.plan.embedded import EmbeddedHost, HostModel, Wishes, plan_embedded, why_too_large

PHONE_Q4 = HostModel(
    weights_bytes=7 * GIB, layers=40, kv_heads=2, head_dim=128, hidden=4096, vocabulary=151_552
)
"""AutoGLM-Phone-9B in four bits with its tower: 40 KiB of keys and values a token."""
WISHES = Wishes(context_tokens=16_384, slots=4, prompt_cache_bytes=256 * 2**20)


def planned(free_gib: float, wishes: Wishes = WISHES, *, total_gib: float = 256, cores: int = 16) -> Plan:
    host = EmbeddedHost(cores=cores, total_bytes=int(total_gib * GIB), free_bytes=int(free_gib * GIB))
    return plan_embedded("llama.cpp", PHONE_Q4, host, wishes)


def memory(plan: Plan) -> HostLedger:
    assert plan.host is not None
    return plan.host


def test_the_ledger_is_counted_by_hand() -> None:
    host = memory(planned(64))
    assert host.kv_cache_bytes == 4 * 16_384 * 40 * 2 * 128 * 2 * 2
    assert host.work_bytes == pytest.approx(0.70 * GIB, rel=0.01)  # llama.cpp's logits, kept prompts, itself
    assert host.needed_bytes == 2 * host.replica_bytes


def test_the_cores_that_are_shown_are_those_that_it_was_planned_with() -> None:
    assert memory(planned(64, cores=6)).cores == 6


@pytest.mark.parametrize(
    ("free_gib", "replicas", "slots", "context"),
    [
        (64, 2, 4, 16_384),
        (16, 1, 4, 16_384),
        (11.5, 1, 2, 16_384),
        (10.6, 1, 1, 16_384),
        (10.1, 1, 1, 8_192),
        (9.9, 1, 1, 4_096),
    ],
)
def test_less_memory_takes_a_replica_then_slots_then_context(
    free_gib: float, replicas: int, slots: int, context: int
) -> None:
    plan = planned(free_gib)
    assert (plan.replicas, plan.max_num_seqs, plan.max_model_len) == (replicas, slots, context)


def test_threads_share_the_cores() -> None:
    assert planned(64, cores=16).threads == 8
    assert planned(16, cores=16).threads == 16
    assert planned(64, replace(WISHES, threads=3)).threads == 3


def test_what_is_asked_for_stays() -> None:
    asked = replace(
        WISHES, replicas=3, slots=5, context_tokens=9_000, slots_are_asked=True, context_is_asked=True
    )
    plan = planned(1, asked)
    assert (plan.replicas, plan.max_num_seqs, plan.max_model_len) == (3, 5, 9_000)
    assert "more than is free now" in plan.reasons[-1]


def test_more_than_the_whole_machine_is_said_with_its_size() -> None:
    assert not why_too_large(planned(3, total_gib=16))
    assert why_too_large(planned(3, total_gib=7)).endswith("this machine has 7.0 GiB: 0.86 GiB too little")


@given(free_gib=st.floats(0.5, 200), slots=st.integers(1, 64), replicas=st.none() | st.integers(1, 8))
def test_it_fits_or_nothing_leaner_was_left(free_gib: float, slots: int, replicas: int | None) -> None:
    plan = planned(free_gib, replace(WISHES, slots=slots, replicas=replicas))
    host = memory(plan)
    leanest = plan.max_num_seqs == 1 and plan.max_model_len == 4_096 and plan.replicas == (replicas or 1)
    assert host.needed_bytes <= 0.8 * host.free_bytes or leanest
    assert host.kv_cache_tokens == (plan.max_num_seqs or 0) * (plan.max_model_len or 0)
