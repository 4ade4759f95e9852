"""The choice of a replica: who may be asked, who has room, and who has least to do."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.route.breaker import CLOSED, FAILURES
from autoglm_serve.route.load_order import LoadOrder, Verdict
from tests.route.naive_choice import Candidate, choose

SLOTS = 6
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("replica"),
            st.integers(0, SLOTS - 1),
            st.sampled_from([ReplicaState.READY, ReplicaState.READY, ReplicaState.WAITING]),
            st.sampled_from([None, 1, 2]),  # capacity in requests
            st.sampled_from([None, 20, 60]),  # capacity in tokens
        ),
        st.tuples(st.just("carries"), st.integers(0, SLOTS - 1), st.integers(0, 3), st.integers(0, 50)),
        st.tuples(st.just("fails"), st.integers(0, SLOTS - 1), st.integers(1, 4)),
        st.tuples(st.just("succeeds"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("goes"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("time"), st.sampled_from([0.1, 0.5, 3.0, 40.0])),
        st.tuples(st.just("choose"), st.integers(0, 40), st.sets(st.integers(0, SLOTS - 1)), st.booleans()),
    ),
    max_size=60,
)


def replica(
    slot: int,
    state: ReplicaState = ReplicaState.READY,
    *,
    requests: int | None = None,
    tokens: int | None = None,
) -> ReplicaView:
    return ReplicaView(
        id=f"r{slot}",
        slot=slot,
        model="m",
        engine="e",
        state=state,
        base_url=f"http://{slot}",
        capacity_requests=requests,
        capacity_tokens=tokens,
    )


def order_of(*replicas: ReplicaView) -> LoadOrder:
    order = LoadOrder()
    for each in replicas:
        order.put(each, requests=0, cost_tokens=0, now_s=0.0)
    return order


def carry(order: LoadOrder, slot: int, requests: int, cost_tokens: int) -> None:
    order.carry(order.entries[slot], requests, cost_tokens, 0.0)


def chosen(order: LoadOrder, cost_tokens: int = 1) -> int | None:
    _, entry = order.choose(cost_tokens, 0.0)
    return entry.replica.slot if entry is not None else None


def test_a_screenshot_in_flight_weighs_more_than_many_questions() -> None:
    order = order_of(replica(0), replica(1))
    carry(order, 0, 1, 3400)
    carry(order, 1, 6, 300)
    assert chosen(order) == 1


@given(st.integers(1, 6))
def test_an_idle_fleet_is_used_in_turn(count: int) -> None:
    order = order_of(*map(replica, range(count)))
    used = []
    for _ in range(2 * count):
        _, entry = order.choose(1, 0.0)
        assert entry is not None
        order.chosen(entry, 0, 0, 0.0)
        used.append(entry.replica.slot)
    assert used == [*range(count), *range(count)]


@given(STEPS)
def test_the_kept_order_chooses_as_one_that_looks_at_every_replica(
    steps: list[tuple[object, ...]],
) -> None:
    order, now_s = LoadOrder(), 0.0
    for step in steps:
        match step:
            case ("replica", int(slot), ReplicaState() as state, requests, tokens):
                view = replica(slot, state, requests=requests, tokens=tokens)  # type: ignore[arg-type]
                order.put(view, requests=0, cost_tokens=0, now_s=now_s)
            case ("carries", int(slot), int(requests), int(cost)) if slot in order.entries:
                order.carry(order.entries[slot], requests, cost if requests else 0, now_s)
            case ("fails", int(slot), int(times)) if slot in order.entries:
                for _ in range(times):
                    entry = order.entries[slot]
                    order.judge(entry, entry.breaker.failed(now_s), now_s)
            case ("succeeds", int(slot)) if slot in order.entries:
                order.judge(order.entries[slot], CLOSED, now_s)
            case ("goes", int(slot)) if slot in order.entries:
                order.drop(slot)
            case ("time", float(passes_s)):
                now_s += passes_s
            case ("choose", int(cost), set() as slots, bool(beyond)):
                passed = {f"http://{slot}" for slot in slots}
                every = [
                    Candidate(
                        replica=entry.replica,
                        cost_tokens=entry.cost_tokens,
                        requests=entry.requests,
                        usable=entry.breaker.allows(now_s),
                        turn=entry.turn,
                    )
                    for entry in order.entries.values()
                ]
                verdict, best = choose(every, cost, passed, beyond=beyond)
                found, entry_ = order.choose(cost, now_s, passed=passed, beyond=beyond)
                assert (found, entry_ and entry_.replica) == (verdict, best)
                if entry_ is not None:
                    order.chosen(entry_, entry_.requests + 1, entry_.cost_tokens + cost, now_s)
            case _:
                pass


def test_a_replica_that_fails_is_asked_only_where_there_is_no_other_until_its_probe_is_due() -> None:
    order = order_of(replica(0), replica(1))
    for _ in range(FAILURES):
        bad = order.entries[0]
        order.judge(bad, bad.breaker.failed(0.0), 0.0)
    carry(order, 1, 3, 1000)
    assert chosen(order) == 1
    assert order.choose(1, 0.0, passed={"http://1"})[1] is bad
    assert order.choose(1, 1.0)[1] is bad  # the probe


def test_a_new_process_in_its_place_is_trusted() -> None:
    order = order_of(replica(0))
    bad = order.entries[0]
    for _ in range(FAILURES):
        order.judge(bad, bad.breaker.failed(0.0), 0.0)
    assert not order.trusted_other_than(())
    order.put(replace(bad.replica, base_url="http://new"), requests=0, cost_tokens=0, now_s=0.0)
    assert order.trusted_other_than(())
    assert order.choose(1, 0.0) == (Verdict.FOUND, bad)


def busy(order: LoadOrder, count: int) -> None:
    """Every replica carries its most requests."""
    for slot in range(count):
        carry(order, slot, 16, 16 * 3400 + slot)


def half_loaded(order: LoadOrder, count: int) -> None:
    for slot in range(count):
        carry(order, slot, slot % 16, (slot % 16) * 3400)


@pytest.mark.parametrize("load", [half_loaded, busy])
def test_a_choice_among_a_thousand_takes_fifty_microseconds_at_most(
    load: Callable[[LoadOrder, int], None],
) -> None:
    count = 1000
    order = order_of(*(replica(slot, requests=16, tokens=60_000) for slot in range(count)))
    load(order, count)

    def once() -> float:
        started_s = time.perf_counter()
        _, entry = order.choose(3400, 0.0)
        if entry is not None:
            order.chosen(entry, entry.requests + 1, entry.cost_tokens + 3400, 0.0)
            order.carry(entry, entry.requests - 1, entry.cost_tokens - 3400, 0.0)
        return time.perf_counter() - started_s

    assert min(once() for _ in range(200)) < 50e-6
