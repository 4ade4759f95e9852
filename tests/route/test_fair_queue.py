"""The queue serves clients in turn, and within a client in order."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.route.fair_queue import TURNS_IN_A_ROUND, FairQueue

PUSHES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=40)


def test_a_greedy_client_delays_itself_alone() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.push("greedy", "greedy", f"greedy {number}")
    queue.push("modest", "modest", "modest 0")
    assert [queue.pop() for _ in range(4)] == ["greedy 0", "modest 0", "greedy 1", "greedy 2"]


@given(PUSHES)
def test_everything_comes_out_once_and_each_client_in_order(pushes: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int, int]] = FairQueue()
    expected = defaultdict(list)
    for number, (client, value) in enumerate(pushes):
        queue.push(client, client, (client, value, number))
        expected[client].append((client, value, number))
    out = defaultdict(list)
    while len(queue):
        assert queue.peek() is not None
        item = queue.pop()
        out[item[0]].append(item)
    assert out == expected
    assert queue.peek() is None


@given(PUSHES)
def test_no_client_is_served_twice_while_another_waits(pushes: list[tuple[str, int]]) -> None:
    queue: FairQueue[str] = FairQueue()
    left: dict[str, int] = defaultdict(int)
    for client, _ in pushes:
        queue.push(client, client, client)
        left[client] += 1
    served: dict[str, int] = defaultdict(int)
    while len(queue):
        client = queue.pop()
        left[client] -= 1
        served[client] += 1
        for other in (other for other, count in left.items() if count):
            assert served[client] <= served[other] + 1


def test_what_leaves_is_gone() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "a", "one")
    queue.push("a", "a", "two")
    assert queue.remove("a", "a", "one")
    assert not queue.remove("a", "a", "one")
    assert not queue.remove("b", "b", "two")
    assert queue.pop() == "two"
    assert len(queue) == 0


@given(PUSHES, st.integers(1, TURNS_IN_A_ROUND))
def test_a_few_clients_of_one_holder_have_the_turns_of_as_many_holders(
    pushes: list[tuple[str, int]], number: int
) -> None:
    queue: FairQueue[str] = FairQueue()
    left: dict[str, int] = defaultdict(int)
    for client, which in pushes:
        name = f"{client}{which % number}" if client == "a" else client
        queue.push(client, name, name)
        left[name] += 1
    served: dict[str, int] = defaultdict(int)
    while len(queue):
        client = queue.pop()
        left[client] -= 1
        served[client] += 1
        for other in (other for other, count in left.items() if count):
            assert served[client] <= served[other] + 1


@given(st.integers(TURNS_IN_A_ROUND + 1, 200))
def test_made_up_clients_have_no_more_turns_than_a_few_honest_ones(many: int) -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(many):
        queue.push("greedy", f"key {number}", "greedy")
    queue.pop()
    queue.push("modest", "modest", "modest")
    assert "modest" in [queue.pop() for _ in range(TURNS_IN_A_ROUND + 1)]
