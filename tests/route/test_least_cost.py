"""The choice of a replica: who may be asked, who has room, and who has least to do."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.route.least_cost import Candidate, Verdict, choose

CANDIDATES = st.lists(
    st.tuples(
        st.sampled_from(ReplicaState),
        st.integers(0, 50),  # cost
        st.integers(0, 3),  # requests
        st.booleans(),  # usable
        st.sampled_from([None, 1, 2]),  # capacity in requests
        st.sampled_from([None, 20, 60]),  # capacity in tokens
    ),
    max_size=8,
)


def candidate(
    slot: int = 0,
    state: ReplicaState = ReplicaState.READY,
    cost_tokens: int = 0,
    requests: int = 0,
    *,
    usable: bool = True,
    capacity_requests: int | None = None,
    capacity_tokens: int | None = None,
) -> Candidate:
    replica = ReplicaView(
        id=f"r{slot}",
        slot=slot,
        model="m",
        engine="e",
        state=state,
        base_url=f"http://{slot}",
        capacity_requests=capacity_requests,
        capacity_tokens=capacity_tokens,
    )
    return Candidate(replica=replica, cost_tokens=cost_tokens, requests=requests, usable=usable)


@given(CANDIDATES, st.sets(st.integers(0, 7)), st.integers(0, 40), st.integers(0, 100))
def test_it_is_ready_untried_has_room_and_nobody_else_has_less_to_do(
    drawn: list[tuple[ReplicaState, int, int, bool, int | None, int | None]],
    tried: set[int],
    cost: int,
    spin: int,
) -> None:
    every = [
        candidate(slot, state, load, requests, usable=usable, capacity_requests=most, capacity_tokens=tokens)
        for slot, (state, load, requests, usable, most, tokens) in enumerate(drawn)
    ]
    choice = choose(every, cost_tokens=cost, tried={f"http://{slot}" for slot in tried}, spin=spin)
    ready = [one for one in every if one.replica.state is ReplicaState.READY]
    able = [one for one in ready if one.replica.slot not in tried]
    able = [one for one in able if one.usable] or able
    free = [one for one in able if one.has_room(cost)]
    if not able:
        assert choice.verdict is Verdict.NONE
    elif not free:
        assert choice.verdict is Verdict.BUSY
    else:
        assert choice.replica is not None
        (chosen,) = (one for one in free if one.replica is choice.replica)
        assert chosen.cost_tokens == min(one.cost_tokens for one in free)


@given(st.integers(1, 6), st.integers(0, 100))
def test_an_idle_fleet_is_used_in_turn(count: int, start: int) -> None:
    every = [candidate(slot) for slot in range(count)]
    chosen = [choose(every, spin=start + turn).replica for turn in range(count)]
    assert {replica.slot for replica in chosen if replica} == set(range(count))


def test_a_screenshot_in_flight_weighs_more_than_many_questions() -> None:
    every = [candidate(0, cost_tokens=3400, requests=1), candidate(1, cost_tokens=300, requests=6)]
    choice = choose(every)
    assert choice.replica is not None
    assert choice.replica.slot == 1


def test_a_replica_in_doubt_is_asked_only_where_there_is_no_other() -> None:
    doubtful, busy = candidate(0, usable=False), candidate(1, cost_tokens=99, requests=3)
    assert choose([doubtful, busy]).replica is busy.replica
    assert choose([doubtful]).replica is doubtful.replica


def test_an_idle_replica_takes_what_is_larger_than_its_capacity() -> None:
    assert choose([candidate(capacity_tokens=10)], cost_tokens=1000).verdict is Verdict.FOUND


def test_a_full_replica_is_waited_for() -> None:
    assert choose([candidate(requests=2, capacity_requests=2)]).verdict is Verdict.BUSY
    full = candidate(requests=1, cost_tokens=90, capacity_tokens=100)
    assert choose([full], cost_tokens=20).verdict is Verdict.BUSY


def test_the_reason_tells_why_there_is_none() -> None:
    assert choose([]).reason == "no ready replica"
    assert choose([candidate()], tried={"http://0"}).reason == "no other ready replica"
