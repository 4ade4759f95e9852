"""Nobody is bounded while there are places; where there are none, who has most gives way to who has less."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.route.places import Places

ASKED = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 4)), min_size=1, max_size=60
)
LIMITS = st.integers(1, 20)


class Held:
    """Places beside a plain list of who has what."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.places = Places(limit)
        self.tickets: dict[int, tuple[str, str, int]] = {}
        self.asked = 0

    def ask(self, holder: str, client: str, size: int) -> list[tuple[str, str, int]] | None:
        """Who left for it; None: it was refused."""
        leaving = self.places.room_for(holder, client, size)
        if leaving is None:
            return None
        left = [self.tickets[each] for each in leaving]
        for each in leaving:
            self.give(each)
        self.asked += 1
        self.places.take(holder, client, self.asked, size)
        self.tickets[self.asked] = (holder, client, size)
        return left

    def give(self, ticket: int) -> None:
        holder, client, _ = self.tickets.pop(ticket)
        self.places.give(holder, client, ticket)

    def by_holder(self) -> Counter[str]:
        held: Counter[str] = Counter()
        for holder, _, size in self.tickets.values():
            held[holder] += size
        return held

    def by_client(self, holder: str) -> Counter[str]:
        held: Counter[str] = Counter()
        for name, client, size in self.tickets.values():
            if name == holder:
                held[client] += size
        return held


@given(ASKED, LIMITS)
def test_while_there_is_room_nobody_is_refused_and_nobody_leaves(
    asked: list[tuple[str, str, int]], limit: int
) -> None:
    held = Held(limit)
    for holder, client, size in asked:
        before = held.by_holder().total()
        left = held.ask(holder, client, size)
        if before + size <= limit:
            assert left == []
        assert held.by_holder().total() <= max(limit, *(each for *_, each in asked))


@given(ASKED, LIMITS)
def test_who_is_refused_would_have_had_as_much_as_anybody(
    asked: list[tuple[str, str, int]], limit: int
) -> None:
    held = Held(limit)
    for holder, client, _ in asked:
        holders, clients = held.by_holder(), held.by_client(holder)
        if held.ask(holder, client, 1) is None:
            assert holders[holder] + 1 >= max(holders.values())
            assert clients[client] + 1 >= max(clients.values(), default=0)


@given(ASKED, LIMITS)
def test_who_leaves_had_more_than_who_comes_has_then(asked: list[tuple[str, str, int]], limit: int) -> None:
    held = Held(limit)
    for holder, client, size in asked:
        holders, clients = held.by_holder(), held.by_client(holder)
        for gone, its_client, _ in held.ask(holder, client, size) or []:
            if gone == holder:
                assert clients[its_client] > held.by_client(holder)[client]
            else:
                assert holders[gone] > held.by_holder()[holder]


@given(st.integers(2, 50), st.integers(1, 100))
def test_one_that_takes_all_leaves_each_other_its_share(others: int, made_up: int) -> None:
    held = Held(60)
    for number in range(200):
        held.ask("greedy", f"key {number % made_up}", 1)
    for number in range(others):
        assert held.ask(f"other {number}", "", 1) is not None
    assert held.by_holder()["greedy"] == 60 - others


def test_the_newest_of_the_greediest_client_leaves() -> None:
    held = Held(4)
    held.ask("office", "modest", 1)
    for _ in range(3):
        held.ask("office", "greedy", 1)
    assert held.ask("elsewhere", "", 1) == [("office", "greedy", 1)]
    assert sorted(held.tickets) == [1, 2, 3, 5]


def test_one_alone_may_be_larger_than_all_there_is_and_where_nobody_may_wait_nobody_does() -> None:
    assert Places(10).room_for("a", "a", 11) == []
    assert Places(0).room_for("a", "a", 1) is None
