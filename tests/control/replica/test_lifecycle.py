"""The table of a replica's life, looked at from every side."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.control.replica.lifecycle import TRANSITIONS, IllegalMove, LifecycleEvent, after
from autoglm_serve.core.replica import ReplicaState as S

ALL = list(product(S, LifecycleEvent))


@pytest.mark.parametrize(("state", "event"), ALL)
def test_every_pair_either_has_one_outcome_or_is_refused(state: S, event: LifecycleEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalMove, match=f"{state} cannot be {event}"):
            after(state, event)


def test_every_state_and_every_event_is_used() -> None:
    assert {state for state, _ in TRANSITIONS} == set(S)
    assert set(TRANSITIONS.values()) == set(S)
    assert {event for _, event in TRANSITIONS} == set(LifecycleEvent)


def test_only_an_answer_makes_a_replica_ready_or_one_that_was_given_to_an_earlier_control_plane() -> None:
    ways = {pair for pair, to in TRANSITIONS.items() if to is S.READY}
    assert ways == {(S.STARTING, LifecycleEvent.ANSWERED), (S.STOPPED, LifecycleEvent.ADOPTED)}


def test_nothing_moves_from_a_state_to_itself() -> None:
    assert not [pair for pair, to in TRANSITIONS.items() if pair[0] is to]


def test_a_replica_with_a_process_stops_being_started_only_through_its_exit() -> None:
    """STOPPED, FAILED and WAITING mean that there is no process; only an exit leads there from one."""
    with_process = {S.STARTING, S.READY, S.DRAINING, S.STOPPING}
    for (state, event), to in TRANSITIONS.items():
        if state in with_process and to not in with_process:
            assert event in {
                LifecycleEvent.ENDED,
                LifecycleEvent.RENEWED,
                LifecycleEvent.CRASHED,
                LifecycleEvent.DOOMED,
            }


def test_stopped_can_be_reached_from_everywhere() -> None:
    reached = {S.STOPPED}
    while new := {state for (state, _), to in TRANSITIONS.items() if to in reached} - reached:
        reached |= new
    assert reached == set(S)


@given(st.lists(st.sampled_from(LifecycleEvent), max_size=30))
def test_a_failed_replica_stays_failed_until_somebody_acts(events: list[LifecycleEvent]) -> None:
    state = S.STOPPED
    for event in events:
        before = state
        state = TRANSITIONS.get((state, event), state)
        if before is S.FAILED and state is not S.FAILED:
            assert event in {LifecycleEvent.START, LifecycleEvent.STOP}
