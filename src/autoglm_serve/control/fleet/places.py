"""The places of a deployment's replicas, and which running process belongs in which. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count

from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.records import ReplicaRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one replica stands: the member it runs, which of its replicas it is, and its column of load."""

    member: Member
    index: int
    slot: int

    @property
    def id(self) -> str:
        return f"r{self.slot}"


Claims = tuple[tuple[Place, ReplicaRecord | None], ...]
"""Every place with the process that goes on there, if one does."""


def claims(
    deployment: Deployment, engines: Mapping[str, Engine], records: Iterable[ReplicaRecord] = ()
) -> Claims:
    """A place for each replica, in the order of members.

    A process is claimed if it was started as it would be started now, apart from its port. It keeps its slot,
    by which the gateway's workers count what it carries.
    """
    left = {record.id: record for record in records}
    wanted = [(member, index) for member in deployment.members for index in range(replicas_of(member))]
    claimed: dict[int, ReplicaRecord] = {}
    for anywhere in (False, True):  # its own place first
        for number, (member, index) in enumerate(wanted):
            if number in claimed:
                continue
            for record in tuple(left.values()):
                if (anywhere or record.id == f"r{number}") and is_current(record, member, index, engines):
                    claimed[number] = left.pop(record.id)
                    break
    taken = {slot_of(record) for record in claimed.values()}
    free = (slot for slot in count() if slot not in taken)
    return tuple(
        (Place(member=member, index=index, slot=slot_of(record) if record else next(free)), record)
        for number, (member, index) in enumerate(wanted)
        for record in (claimed.get(number),)
    )


def revised(places: Iterable[Place], before: Deployment, after: Deployment) -> tuple[Place, ...]:
    """The places of a changed deployment: a replica that stays keeps its slot, a new one gets a free one."""
    slots = {
        (number, place.index): place.slot
        for number, member in enumerate(before.members)
        for place in places
        if place.member is member
    }
    free = (slot for slot in count() if slot not in slots.values())
    return tuple(
        Place(
            member=member,
            index=index,
            slot=slots[number, index] if (number, index) in slots else next(free),
        )
        for number, member in enumerate(after.members)
        for index in range(replicas_of(member))
    )


def is_current(record: ReplicaRecord, member: Member, index: int, engines: Mapping[str, Engine]) -> bool:
    """It was started as it would be started now."""
    if member.upstreams:
        return False
    return record.argv == engines[member.plan.engine].command(member, index, record.port).argv


def replicas_of(member: Member) -> int:
    return len(member.upstreams) or member.plan.replicas


def slot_of(record: ReplicaRecord) -> int:
    return int(record.id.removeprefix("r"))
