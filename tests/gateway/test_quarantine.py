"""A request that kills is stopped; one that was only there is not."""

from autoglm_serve.gateway.quarantine import QUARANTINE_S, Quarantine
from tests.gateway.gateway_process import fleet_of

POISON, OTHER = b'{"messages": "poison"}', b'{"messages": "sound!"}'


def blamed(quarantine: Quarantine, body: bytes, *names: str) -> bool:
    """Whether the last of these replicas was one too many."""
    return [quarantine.blame(body, f"http://{name}", 0.0) for name in names or ("a", "b")][-1]


def holds(quarantine: Quarantine, body: bytes, now_s: float = 1.0) -> bool:
    return quarantine.holds(body, fleet_of(["http://z"]), now_s)


def test_the_second_death_is_one_too_many() -> None:
    quarantine = Quarantine()
    assert not blamed(quarantine, POISON, "a")
    assert not holds(quarantine, POISON)
    assert blamed(quarantine, POISON, "b")
    assert holds(quarantine, POISON)


def test_the_same_replica_dies_once() -> None:
    assert not blamed(Quarantine(), POISON, "a", "a")


def test_it_is_let_go_when_a_replica_that_it_was_blamed_for_lives() -> None:
    quarantine = Quarantine()
    blamed(quarantine, POISON, "a", "b")
    assert not quarantine.holds(POISON, fleet_of(["http://b", "http://c"]), 1.0)


def test_others_are_served_also_those_of_the_same_length() -> None:
    quarantine = Quarantine()
    blamed(quarantine, POISON)
    assert len(OTHER) == len(POISON)
    assert not holds(quarantine, OTHER)
    assert not holds(quarantine, b"short")


def test_it_ends_after_a_while() -> None:
    quarantine = Quarantine()
    blamed(quarantine, POISON)
    assert holds(quarantine, POISON, QUARANTINE_S - 1)
    assert not holds(quarantine, POISON, QUARANTINE_S)


def test_an_answer_clears_it_of_the_death_before() -> None:
    quarantine = Quarantine()
    blamed(quarantine, POISON, "a")
    quarantine.clear(POISON)
    assert not blamed(quarantine, POISON, "b")


def test_it_remembers_so_many_suspects_and_no_more() -> None:
    quarantine = Quarantine()
    blamed(quarantine, POISON, "a")
    for number in range(1000):
        blamed(quarantine, b"%d" % number, "a")
    assert not blamed(quarantine, POISON, "b")  # forgotten


def test_it_keeps_so_many_convicts_and_no_more() -> None:
    quarantine = Quarantine()
    for number in range(2000):
        blamed(quarantine, b"%d" % number)
    held = [number for number in range(2000) if holds(quarantine, b"%d" % number)]
    assert held == list(range(2000 - 256, 2000))
