"""A request that kills is stopped; one that was only there is not."""

from dataclasses import replace

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.replica import Loss, ReplicaState
from autoglm_serve.gateway.recovery.fingerprint import Fingerprint
from autoglm_serve.gateway.recovery.quarantine import QUARANTINE_S, Quarantine
from tests.gateway.gateway_process import fleet_of

POISON, OTHER = Fingerprint(b'{"messages": "poison"}'), Fingerprint(b'{"messages": "sound!"}')


def lost(*losses: Loss) -> FleetView:
    """The supervisor's word on replicas that were lost."""
    view = fleet_of([""] * len(losses), state=ReplicaState.WAITING)
    pairs = zip(view.replicas, losses, strict=True)
    return replace(view, replicas=tuple(replace(replica, lost=loss) for replica, loss in pairs))


def ended_by_others(*names: str) -> FleetView:
    return lost(*(Loss(base_url=f"http://{name}", by_itself=False) for name in names))


def blame(quarantine: Quarantine, body: Fingerprint, *names: str) -> bool:
    """Whether these replicas are too many, if nobody says how they ended; and then it is convicted."""
    for name in names or ("a", "b"):
        quarantine.blame(body, f"http://{name}", 0.0)
    if quarantine.condemns(body):
        quarantine.convict(body, 0.0)
        return True
    return False


def holds(quarantine: Quarantine, body: Fingerprint, now_s: float = 1.0) -> bool:
    return quarantine.holds(body, fleet_of(["http://z"]), now_s)


def test_the_second_death_is_one_too_many() -> None:
    quarantine = Quarantine()
    assert not blame(quarantine, POISON, "a")
    assert quarantine.suspects(POISON)
    assert not holds(quarantine, POISON)
    assert blame(quarantine, POISON, "b")
    assert holds(quarantine, POISON)


def test_the_same_replica_dies_once() -> None:
    assert not blame(Quarantine(), POISON, "a", "a")


def test_two_replicas_that_somebody_killed_make_no_poison() -> None:
    quarantine = Quarantine()
    quarantine.fleet_changed(ended_by_others("a", "b"))
    assert not blame(quarantine, POISON, "a")
    assert not quarantine.suspects(POISON)
    assert not blame(quarantine, POISON, "b")
    assert not holds(quarantine, POISON)


def test_the_word_may_come_after_the_blame() -> None:
    quarantine = Quarantine()
    quarantine.blame(POISON, "http://a", 0.0)
    assert quarantine.suspects(POISON)
    quarantine.fleet_changed(ended_by_others("a"))
    assert not quarantine.suspects(POISON)
    assert not blame(quarantine, POISON, "b")
    assert blame(quarantine, POISON, "c")


def test_a_replica_that_ended_by_itself_counts_whole() -> None:
    quarantine = Quarantine()
    quarantine.fleet_changed(lost(Loss(base_url="http://a", by_itself=True)))
    quarantine.fleet_changed(lost(Loss(base_url="http://b", by_itself=True)))
    assert blame(quarantine, POISON)


def test_what_gets_every_replica_killed_from_outside_is_stopped_too() -> None:
    quarantine = Quarantine()
    quarantine.fleet_changed(ended_by_others("a", "b", "c", "d"))
    assert not blame(quarantine, POISON, "a", "b", "c")
    assert blame(quarantine, POISON, "d")


def test_it_is_let_go_when_a_replica_that_it_was_blamed_for_lives() -> None:
    quarantine = Quarantine()
    blame(quarantine, POISON, "a", "b")
    assert not quarantine.holds(POISON, fleet_of(["http://b", "http://c"]), 1.0)


def test_others_are_served_also_those_of_the_same_length() -> None:
    quarantine = Quarantine()
    blame(quarantine, POISON)
    assert OTHER.length == POISON.length
    assert not holds(quarantine, OTHER)
    assert not holds(quarantine, Fingerprint(b"short"))


def test_it_ends_after_a_while() -> None:
    quarantine = Quarantine()
    blame(quarantine, POISON)
    assert holds(quarantine, POISON, QUARANTINE_S - 1)
    assert not holds(quarantine, POISON, QUARANTINE_S)


def test_a_death_long_ago_is_forgotten() -> None:
    quarantine = Quarantine()
    quarantine.blame(POISON, "http://a", 0.0)
    quarantine.blame(POISON, "http://b", QUARANTINE_S)
    assert not quarantine.condemns(POISON)


def test_an_answer_clears_it_of_the_death_before() -> None:
    quarantine = Quarantine()
    blame(quarantine, POISON, "a")
    quarantine.clear(POISON)
    assert not quarantine.suspects(POISON)
    assert not blame(quarantine, POISON, "b")


def test_it_remembers_so_many_suspects_and_no_more() -> None:
    quarantine = Quarantine()
    blame(quarantine, POISON, "a")
    for number in range(1000):
        blame(quarantine, Fingerprint(b"%d" % number), "a")
    assert not blame(quarantine, POISON, "b")  # forgotten


def test_it_keeps_so_many_convicts_and_no_more() -> None:
    quarantine = Quarantine()
    for number in range(2000):
        blame(quarantine, Fingerprint(b"%d" % number), f"a{number}", f"b{number}")
    held = [number for number in range(2000) if holds(quarantine, Fingerprint(b"%d" % number))]
    assert held == list(range(2000 - 256, 2000))


INNOCENT = Fingerprint(b'{"messages": "innocent"}')


def killer(number: int) -> Fingerprint:
    """The same again, with a byte changed."""
    return Fingerprint(b'{"messages": "kill %d"}' % number)


def test_an_innocent_that_waits_beside_others_who_kill_is_not_condemned() -> None:
    quarantine = Quarantine()
    for number, name in enumerate("abc"):
        quarantine.blame(INNOCENT, f"http://{name}", 10.0 * number)
        quarantine.blame(killer(number), f"http://{name}", 10.0 * number)
        assert not quarantine.condemns(INNOCENT)


def test_one_that_was_alone_at_the_second_death_is_condemned_however_many_were_at_the_first() -> None:
    quarantine = Quarantine()
    for body in (POISON, *map(killer, range(30))):
        quarantine.blame(body, "http://a", 0.0)
    quarantine.blame(POISON, "http://b", 1.0)
    assert quarantine.condemns(POISON)
    assert not any(quarantine.condemns(killer(number)) for number in range(30))


def test_one_that_was_at_every_death_is_condemned_in_the_end_though_never_alone() -> None:
    quarantine = Quarantine()
    for number, name in enumerate("abcd"):
        quarantine.blame(POISON, f"http://{name}", 10.0 * number)
        quarantine.blame(killer(number), f"http://{name}", 10.0 * number)
    assert quarantine.condemns(POISON)


def test_a_byte_changed_is_no_way_around() -> None:
    quarantine = Quarantine()
    for name in "ab":
        quarantine.blame(killer(0), f"http://{name}", 0.0)
    quarantine.convict(killer(0), 0.0, "somebody")
    assert quarantine.suspects(killer(1), "somebody", 1.0)  # tried alone from the start
    assert not quarantine.suspects(killer(1), "another", 1.0)
    quarantine.blame(killer(1), "http://c", 1.0)
    assert quarantine.condemns(killer(1), "somebody", 1.0)
    assert not quarantine.condemns(killer(1), "another", 1.0)
    assert not quarantine.suspects(INNOCENT, "somebody", QUARANTINE_S)


def test_the_same_address_may_die_again_later() -> None:
    quarantine = Quarantine()
    quarantine.blame(POISON, "http://a", 0.0)
    quarantine.blame(POISON, "http://a", 30.0)
    assert quarantine.condemns(POISON)


def test_an_address_that_takes_connections_has_not_died() -> None:
    quarantine = Quarantine()
    blame(quarantine, POISON, "a")
    quarantine.acquit("http://a")
    assert not quarantine.suspects(POISON)
    assert not blame(quarantine, POISON, "b")
