"""From what runs to what ought to run: the next correction, one at a time. Pure.

Whoever makes it asks again afterwards, so a desired state that has changed meanwhile is followed from
wherever the replicas are by then. A process is started only where no other holds its GPUs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.replica.desired import DesiredReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """One replica that there is."""

    replica: DesiredReplica
    """As it was wanted when it was last told."""
    holds: frozenset[tuple[str, int]]
    """The GPUs that its process has, each with its machine."""
    outdated: bool
    """It has a process, or failed to have one, and that is not the one which is wanted now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartReplica:
    """One replica more."""

    replica: DesiredReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """Another process for a replica that stays."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """No longer wanted, or in the way of one that is."""

    id: str


Correction = StartReplica | Renew | Remove


def next_correction(desired: DesiredState, present: Iterable[Present]) -> Correction | None:
    """What to do first; None where what runs is what ought to run.

    First what is missing, then what is outdated, last what is too much: as many serve at any time as can. A
    replica that holds the GPUs of another goes earlier.
    """
    there = {each.replica.id: each for each in present}
    missing = [each for each in desired.replicas if each.id not in there]
    outdated = [each for each in desired.replicas if each.id in there and there[each.id].outdated]
    blockers = {each.id: _in_the_way(each, there, desired) for each in (*missing, *outdated)}
    for wanted in missing:
        if blockers[wanted.id] is None:
            return StartReplica(replica=wanted)
    for wanted in outdated:
        if blockers[wanted.id] is None:
            return Renew(id=wanted.id)
    wanted_ids = {each.id for each in desired.replicas}
    surplus = (name for name in there if name not in wanted_ids)
    in_the_way = (blocker for blocker in blockers.values() if blocker is not None)
    return next((Remove(id=name) for name in (*in_the_way, *surplus)), None)


def _in_the_way(wanted: DesiredReplica, there: Mapping[str, Present], desired: DesiredState) -> str | None:
    """Another replica that holds a GPU of this one and is to give it up; rather one that is not wanted."""
    needs = {(wanted.placement.host, gpu) for gpu in wanted.placement.gpus}
    wanted_ids = {each.id for each in desired.replicas}
    holders = [
        name
        for name, each in there.items()
        if name != wanted.id and each.holds & needs and (each.outdated or name not in wanted_ids)
    ]
    return min(holders, key=lambda name: name in wanted_ids, default=None)
