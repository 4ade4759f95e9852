"""When a replica that carries requests counts as getting on with none."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.control.replica.progress import Standstill, Work, after_look

BUSY = Work(in_flight=3, finished=7, counters=100)
SILENT = replace(BUSY, counters=None)


def since(*looks: Work) -> float:
    """When it last moved, for looks one second apart from 0 on."""
    still: Standstill | None = None
    for now_s, work in enumerate(looks):
        still = after_look(still, work, float(now_s))
    assert still is not None
    return still.since_s


def test_the_same_evidence_is_a_standstill() -> None:
    assert since(BUSY, BUSY, BUSY) == 0


def test_a_step_of_the_engine_ends_it() -> None:
    assert since(BUSY, replace(BUSY, counters=101), replace(BUSY, counters=101)) == 1


def test_a_client_that_left_is_no_step_of_an_engine_that_counts_its_own() -> None:
    assert since(BUSY, replace(BUSY, finished=8)) == 0


def test_an_engine_that_counts_nothing_is_judged_by_the_requests_it_was_rid_of() -> None:
    assert since(SILENT, SILENT) == 0
    assert since(SILENT, replace(SILENT, finished=8)) == 1


def test_counters_that_cannot_be_read_for_once_are_no_step() -> None:
    assert since(BUSY, SILENT, BUSY) == 0


@given(st.builds(Work, in_flight=st.just(0), finished=st.integers(), counters=st.none() | st.integers()))
def test_who_carries_nothing_does_not_stand_still(work: Work) -> None:
    assert since(work, work, work) == 2
