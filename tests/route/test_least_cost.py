"""The replica with the fewest outstanding tokens, among those that may be asked."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.route.least_cost import choose


def replicas(states: list[ReplicaState]) -> list[ReplicaView]:
    return [
        ReplicaView(id=f"r{slot}", slot=slot, model="m", engine="e", state=state, base_url="http://x")
        for slot, state in enumerate(states)
    ]


READY = ReplicaState.READY
FLEETS = st.lists(
    st.tuples(st.sampled_from(list(ReplicaState)), st.integers(0, 5), st.booleans()), max_size=8
)


@given(FLEETS, st.integers(0, 1000))
def test_it_is_ready_untried_and_nobody_else_has_less_to_do(
    fleet: list[tuple[ReplicaState, int, bool]], spin: int
) -> None:
    every = replicas([state for state, _, _ in fleet])
    loads = [load for _, load, _ in fleet]
    tried = {replica.id for replica, (_, _, was) in zip(every, fleet, strict=True) if was}
    allowed = [replica for replica in every if replica.state is READY and replica.id not in tried]
    choice = choose(every, loads, tried=tried, spin=spin)
    assert choice.reason
    if not allowed:
        assert choice.replica is None
    else:
        assert choice.replica in allowed
        assert loads[choice.replica.slot] == min(loads[replica.slot] for replica in allowed)


@given(st.integers(1, 6), st.integers(0, 100))
def test_an_idle_fleet_is_used_in_turn(count: int, start: int) -> None:
    every = replicas([READY] * count)
    chosen = [choose(every, [0] * count, spin=start + turn).replica for turn in range(count)]
    assert {replica.id for replica in chosen if replica} == {replica.id for replica in every}


def test_the_reason_tells_why_there_is_none() -> None:
    assert choose([], []).reason == "no ready replica"
    assert choose(replicas([READY]), [0], tried={"r0"}).reason == "no other ready replica"
