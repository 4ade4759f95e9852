"""Work in flight returns to zero, whoever carried it and however it ended."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm_serve.gateway.routing.load import Burden, LoadTable

TAKES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000), st.booleans()), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TAKES)
def test_the_sum_is_what_is_in_hand_and_returns_to_zero(
    tmp_path: Path, takes: list[tuple[int, int, bool]]
) -> None:
    workers = [LoadTable(tmp_path / "load", row) for row in range(2)]
    reader = LoadTable(tmp_path / "load")
    held: list[tuple[int, int, Burden]] = []
    for turn, (slot, cost, ends) in enumerate(takes):
        held.append((slot, cost, workers[turn % 2].take(slot, cost)))
        if ends:
            held.pop(turn % len(held))[2].put_down()
        for one in range(4):
            assert reader.requests(one) == sum(other == one for other, _, _ in held)
            assert reader.cost_tokens(one) == sum(cost for other, cost, _ in held if other == one)
    for _, _, burden in held:
        burden.put_down()
    assert [reader.requests(slot) for slot in range(4)] == [0] * 4
    assert [reader.cost_tokens(slot) for slot in range(4)] == [0] * 4
    for table in (*workers, reader):
        table.close()


def test_a_request_that_came_and_went_is_still_counted(tmp_path: Path) -> None:
    workers, reader = [LoadTable(tmp_path / "load", row) for row in range(2)], LoadTable(tmp_path / "load")
    for worker in workers:
        burden = worker.take(2, 10)
        assert reader.requests(2) == 1
        burden.put_down()
    assert (reader.requests(2), reader.taken(2), reader.taken(1)) == (0, 2, 0)


def test_a_burden_is_put_down_once(tmp_path: Path) -> None:
    table = LoadTable(tmp_path / "load", 0)
    burden = table.take(1, 10)
    burden.put_down()
    burden.put_down()
    assert table.requests(1) == table.cost_tokens(1) == 0


def test_a_workers_beats_are_its_own(tmp_path: Path) -> None:
    workers, reader = [LoadTable(tmp_path / "load", row) for row in range(2)], LoadTable(tmp_path / "load")
    for _ in range(3):
        workers[1].beat()
    assert [reader.beats(row) for row in range(2)] == [0, 3]
    assert reader.requests(0) == reader.requests(255) == 0


def test_the_successor_of_a_dead_worker_clears_its_row_and_no_other(tmp_path: Path) -> None:
    dead, other = LoadTable(tmp_path / "load", 0), LoadTable(tmp_path / "load", 1)
    dead.take(2, 100)
    other.take(2, 7)
    successor = LoadTable(tmp_path / "load", 0)
    assert (successor.requests(2), successor.cost_tokens(2)) == (1, 7)
