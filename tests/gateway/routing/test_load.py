"""Work in flight returns to zero, however it ended; and nothing lands in another's slot."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm_serve.core.fleet import MOST_REPLICAS
from autoglm_serve.gateway.routing.load import MAX_SLOTS, MAX_WORKERS, LoadTable, NoSuchSlot

TAKES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000), st.booleans()), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TAKES)
def test_the_sum_is_what_is_in_hand_and_returns_to_zero(
    tmp_path: Path, takes: list[tuple[int, int, bool]]
) -> None:
    workers = [LoadTable(tmp_path / "loads", row) for row in range(2)]
    reader = LoadTable(tmp_path / "loads")
    held: list[tuple[int, int, LoadTable]] = []
    for turn, (slot, cost, ends) in enumerate(takes):
        workers[turn % 2].take(slot, cost)
        held.append((slot, cost, workers[turn % 2]))
        if ends:
            slot, cost, worker = held.pop(turn % len(held))
            worker.give(slot, cost)
        for one in range(4):
            assert reader.requests(one) == sum(other == one for other, _, _ in held)
            assert reader.cost_tokens(one) == sum(cost for other, cost, _ in held if other == one)
    for slot, cost, worker in held:
        worker.give(slot, cost)
    assert [reader.requests(slot) for slot in range(4)] == [0] * 4
    assert [reader.cost_tokens(slot) for slot in range(4)] == [0] * 4
    for table in (*workers, reader):
        table.close()


def test_a_request_that_came_and_went_is_still_counted(tmp_path: Path) -> None:
    workers, reader = [LoadTable(tmp_path / "loads", row) for row in range(2)], LoadTable(tmp_path / "loads")
    for worker in workers:
        worker.take(2, 10)
        assert reader.requests(2) == 1
        worker.give(2, 10)
    assert (reader.requests(2), reader.taken(2), reader.taken(1)) == (0, 2, 0)


def test_a_workers_beats_are_its_own(tmp_path: Path) -> None:
    workers, reader = [LoadTable(tmp_path / "loads", row) for row in range(2)], LoadTable(tmp_path / "loads")
    for _ in range(3):
        workers[1].beat()
    assert [reader.beats(row) for row in range(2)] == [0, 3]
    assert reader.requests(0) == reader.requests(MAX_SLOTS - 1) == 0


def test_the_successor_of_a_dead_worker_clears_its_row_and_no_other(tmp_path: Path) -> None:
    dead, other = LoadTable(tmp_path / "loads", 0), LoadTable(tmp_path / "loads", 1)
    dead.take(2, 100)
    other.take(2, 7)
    successor = LoadTable(tmp_path / "loads", 0)
    assert (successor.requests(2), successor.cost_tokens(2)) == (1, 7)


@pytest.mark.parametrize("slot", [-1, MAX_SLOTS, MAX_SLOTS + 44])
def test_a_slot_that_it_cannot_hold_is_refused_by_name_and_written_nowhere(tmp_path: Path, slot: int) -> None:
    table, reader = LoadTable(tmp_path / "loads", 0), LoadTable(tmp_path / "loads")
    for use in (lambda: table.take(slot, 10), lambda: table.give(slot, 10), lambda: reader.requests(slot)):
        with pytest.raises(NoSuchSlot, match=f"slot {slot} "):
            use()
    assert not any(reader.requests(each) or reader.cost_tokens(each) for each in range(MAX_SLOTS))


def test_each_of_the_most_replicas_has_a_slot_of_its_own(tmp_path: Path) -> None:
    table, last = LoadTable(tmp_path / "loads", 0), LoadTable(tmp_path / "loads", MAX_WORKERS - 1)
    for slot in range(MOST_REPLICAS):
        table.take(slot, slot)
        last.take(slot, 1)
    assert [table.cost_tokens(slot) for slot in range(MOST_REPLICAS)] == [n + 1 for n in range(MOST_REPLICAS)]
    assert table.beats(0) == 0
    with pytest.raises(NoSuchSlot, match=f"worker {MAX_WORKERS} "):
        LoadTable(tmp_path / "loads", MAX_WORKERS)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(1, 400)),  # worker, slot, times
        st.just("dies"),
        st.just("reads"),
    ),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(CHANGES)
def test_who_reads_only_what_has_changed_knows_what_one_who_reads_all_knows(
    tmp_path: Path, changes: list[object]
) -> None:
    workers = [LoadTable(tmp_path / "loads", row) for row in range(3)]
    others, known = workers[0].others(3), dict.fromkeys(range(10), (0, 0))
    for change in [*changes, "reads"]:
        match change:
            case (int(worker), int(slot), int(times)):
                for _ in range(times):
                    workers[worker].take(slot, 7)
            case "dies":
                workers[2] = LoadTable(tmp_path / "loads", 2)
            case _:
                known |= {slot: (requests, tokens) for slot, requests, tokens in others.news(range(10))}
                assert known == {slot: others.carry(slot) for slot in range(10)}
    for table in workers:
        table.close()


def test_hearing_of_the_others_costs_by_what_has_changed_and_not_by_how_many_replicas_there_are(
    tmp_path: Path,
) -> None:
    own, other = LoadTable(tmp_path / "loads", 0), LoadTable(tmp_path / "loads", 1)
    others, slots = own.others(4), range(1000)
    list(others.news(slots))

    def once() -> float:
        other.take(999, 10)
        started_s = time.perf_counter()
        assert list(others.news(slots)) == [(999, *others.carry(999))]
        return time.perf_counter() - started_s

    assert min(once() for _ in range(200)) < 50e-6
