"""What ought to run: one value, from which everything that is done to replicas follows. Pure.

A start, a restart, other settings, more or fewer replicas are each another desired state; `reconcile` finds
the steps that lead there. Knows no process: those that go on are claimed by what they were started as.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

from autoglm_serve.control.replica.desired import SLOT, DesiredReplica
from autoglm_serve.core.plan import Deployment, Member, Placement
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.base import Left


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Every replica that ought to run, in the order of members."""

    replicas: tuple[DesiredReplica, ...] = ()

    @classmethod
    def of(cls, deployment: Deployment) -> "DesiredState":
        """That of a deployment of which nothing runs yet."""
        return cls(replicas=tuple(replica for replica, _ in claims(deployment, {})))

    def renewed(self, ids: Collection[str]) -> "DesiredState":
        """The same, of which these are to get new processes."""
        return DesiredState(
            replicas=tuple(
                replace(each, generation=each.generation + 1) if each.id in ids else each
                for each in self.replicas
            )
        )

    def revised(self, before: Deployment, after: Deployment) -> "DesiredState":
        """That of a changed deployment: a replica that stays keeps its id and slot, if it can its GPUs."""
        kept = tuple(
            (each, old)
            for number, member in enumerate(after.members)
            for each, old in self._of(number, member, before)
        )
        stay = [old for _, old in kept if old is not None]
        ids, slots = _ids([each.id for each in stay]), _slots([each.slot for each in stay])
        return DesiredState(
            replicas=tuple(
                replace(old, member=each.member, placement=each.placement)
                if old is not None
                else replace(each, id=next(ids), slot=next(slots))
                for each, old in kept
            )
        )

    def _of(
        self, number: int, member: Member, before: Deployment
    ) -> Iterator[tuple[DesiredReplica, DesiredReplica | None]]:
        """Each replica of a member, with the one that there was before."""
        former = before.members[number] if number < len(before.members) else None
        left = [each for each in self.replicas if former is not None and each.member.names == former.names]
        wanted = [_unnamed(member, placement) for placement in member.plan.placements]
        found: dict[int, DesiredReplica] = {}
        for anywhere in (False, True):  # who may stay where it is, stays
            for index, each in enumerate(wanted):
                same = (old for old in left if anywhere or old.placement == each.placement)
                if index not in found and (old := next(same, None)) is not None:
                    found[index] = old
                    left.remove(old)
        return ((each, found.get(index)) for index, each in enumerate(wanted))


Claims = tuple[tuple[DesiredReplica, Left | None], ...]
"""Every replica with the process that goes on as it, if one does."""


def claims(deployment: Deployment, engines: Mapping[str, Engine], left: Iterable[Left] = ()) -> Claims:
    """The replicas of a deployment, in the order of members.

    A process is claimed if it was started as it would be started now, apart from its address. It keeps its id
    and its slot.
    """
    free = {each.id: each for each in left}
    wanted = [
        _unnamed(member, placement) for member in deployment.members for placement in member.plan.placements
    ]
    claimed: dict[int, Left] = {}
    for anywhere in (False, True):  # where it was counted before, if that is possible
        for number, each in enumerate(wanted):
            if number in claimed:
                continue
            for one in tuple(free.values()):
                if (anywhere or one.id == f"r{number}") and is_current(one, each, engines):
                    claimed[number] = free.pop(one.id)
                    break
    ids = _ids([each.id for each in claimed.values()])
    slots = _slots([slot_of(each) for each in claimed.values()])
    return tuple(
        (replace(each, id=mine.id, slot=slot_of(mine)), mine)
        if (mine := claimed.get(number)) is not None
        else (replace(each, id=next(ids), slot=next(slots)), None)
        for number, each in enumerate(wanted)
    )


def is_current(left: Left, wanted: DesiredReplica, engines: Mapping[str, Engine]) -> bool:
    """It was started as it would be started now."""
    if wanted.placement.address:
        return False
    engine = engines[wanted.member.plan.engine]
    return left.runs(engine.command(wanted.member, wanted.placement, left.listen))


def one_more(desired: Iterable[DesiredReplica], like: DesiredReplica) -> DesiredReplica:
    """Another replica like this one, beside these."""
    there = tuple(desired)
    ids, slots = _ids([each.id for each in there]), _slots([each.slot for each in there])
    return replace(like, id=next(ids), slot=next(slots), generation=0)


def slot_of(left: Left) -> int:
    """By which slot it was counted; a process of before it was noted has the number of its name."""
    return int(left.note.get(SLOT) or left.id.removeprefix("r"))


def _unnamed(member: Member, placement: Placement) -> DesiredReplica:
    return DesiredReplica(id="", slot=-1, member=member, placement=placement)


def _ids(taken: Collection[str]) -> Iterator[str]:
    return (name for number in count() if (name := f"r{number}") not in taken)


def _slots(taken: Collection[int]) -> Iterator[int]:
    return (slot for slot in count() if slot not in taken)
