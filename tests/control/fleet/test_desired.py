"""Which running process goes on in which place after a restart of the control plane."""

from dataclasses import replace
from pathlib import Path

from autoglm_serve.control.fleet.desired import claims
from autoglm_serve.core.plan import Deployment, Member, Placement
from autoglm_serve.launch.process import ProcessIdentity
from autoglm_serve.launch.records import ReplicaRecord
from tests.fakes.addresses import at
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member

ADAPTER = FaultyAdapter()
ENGINES = {"faulty": ADAPTER}
CHAT = faulty_member(replicas=2)
OTHER = replace(faulty_member(replicas=1), names=("other",))


def record(name: str, member: Member, port: int) -> ReplicaRecord:
    return ReplicaRecord(
        id=name,
        identity=ProcessIdentity(pid=port, start_ticks=1, boot_id="b"),
        argv=ADAPTER.command(member, Placement(), at(port)).argv,
        port=port,
        log_path=Path("/x"),
    )


def claimed(*records: ReplicaRecord) -> list[tuple[str, str, int | None]]:
    """(place, model, port of the process that goes on there)"""
    found = claims(Deployment(members=(CHAT, OTHER)), ENGINES, records)
    return [(place.id, place.member.name, record.listen.port if record else None) for place, record in found]


def test_without_processes_the_places_are_counted_through() -> None:
    assert claimed() == [("r0", "faulty-model", None), ("r1", "faulty-model", None), ("r2", "other", None)]


def test_each_process_goes_on_in_its_own_place_whatever_its_port() -> None:
    found = claimed(record("r1", CHAT, 8), record("r0", CHAT, 7), record("r2", OTHER, 9))
    assert found == [("r0", "faulty-model", 7), ("r1", "faulty-model", 8), ("r2", "other", 9)]


def test_what_was_started_otherwise_goes_on_nowhere() -> None:
    assert claimed(record("r0", faulty_member(engine_args=("--x",)), 7))[0] == ("r0", "faulty-model", None)


def test_a_process_in_a_place_that_was_counted_otherwise_keeps_its_slot() -> None:
    found = claimed(record("r0", OTHER, 7), record("r5", CHAT, 8))
    assert found == [("r5", "faulty-model", 8), ("r1", "faulty-model", None), ("r0", "other", 7)]


def test_more_processes_than_places_are_not_all_claimed() -> None:
    found = claimed(*(record(f"r{number}", CHAT, number) for number in range(9)))
    assert [port for _, _, port in found] == [0, 1, None]
