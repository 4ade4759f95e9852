"""Memory that a service's own replicas hold: for a new plan it is as good as free, they make way for it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psutil

from autoglm_serve.core.plan import Deployment
from autoglm_serve.probe.gpus import GpuReading, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What runs of the service that is planned for."""

    pids: frozenset[int] = frozenset()
    """Its processes, those that they started too."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """The share of each GPU, by the driver's name of it, that they were told to take."""


NOTHING = Own()


def own_of(pids: Iterable[int], deployment: Deployment | None = None) -> Own:
    """These processes with all that they started; `deployment` is what they run, where that is known."""
    return Own(pids=frozenset(_families(pids)), shares=_shares(deployment) if deployment else {})


def without(own: Own, snapshot: Snapshot) -> Snapshot:
    """The GPUs as they would be if none of those ran. Pure."""
    return replace(snapshot, gpus=tuple(_reading_without(own, reading) for reading in snapshot.gpus))


def main_bytes(own: Own) -> int:
    """Main memory that would be free without them: what they share with nobody."""
    return sum(map(_unshared_bytes, own.pids))


def _reading_without(own: Own, reading: GpuReading) -> GpuReading:
    mine = [size for pid, size in reading.processes if pid in own.pids]
    held_bytes = sum(size or 0 for size in mine)
    if not held_bytes and own.pids:  # in a container the driver may name no process, or none of its sizes
        held_bytes = round(own.shares.get(reading.uuid, 0.0) * reading.total_bytes)
    others = tuple((pid, size) for pid, size in reading.processes if pid not in own.pids)
    return replace(reading, used_bytes=max(0, reading.used_bytes - held_bytes), processes=others)


def _shares(deployment: Deployment) -> dict[str, float]:
    plans = [member.plan for member in deployment.members]
    return {
        device: plan.gpu_memory_utilization
        for plan in plans
        if plan.gpu_memory_utilization is not None
        for placement in plan.placements
        for device in placement.devices
    }


def _families(pids: Iterable[int]) -> Iterable[int]:
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            yield pid
            yield from (child.pid for child in process.children(recursive=True))


def _unshared_bytes(pid: int) -> int:
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().uss)
    return 0
