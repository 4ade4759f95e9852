"""What of the gateway workers of an earlier control plane goes on: who hands over its listening socket.

One at each socket goes on. Another at the same was to be its successor, or its predecessor; one that hands
over none, or one at another address, has been told to leave, or is of no use here. Those finish what they
carry.

Called at the start, by whoever holds the state directory's lock.
"""

import logging
import os
import re
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.control.workers.gateway_workers import RETIRE, Adopted
from autoglm_serve.launch import handover, listeners
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.records import ReplicaRecord

log = logging.getLogger(__name__)

_REPLICA = re.compile(r"r\d+")
_WORKER = re.compile(r"(gateway|retired)-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What was left running."""

    replicas: tuple[ReplicaRecord, ...] = ()
    workers: tuple[Adopted, ...] = ()

    @property
    def listeners(self) -> tuple[socket.socket, ...]:
        return tuple(worker.listener for worker in self.workers if worker.listener is not None)


def is_worker(record_id: str) -> bool:
    """The record is a gateway worker's."""
    return _WORKER.fullmatch(record_id) is not None


async def inherit(
    left: Sequence[ReplicaRecord], launcher: LocalLauncher, state_dir: Path, host: str, port: int
) -> Leftovers:
    """Sorts what was left. Port 0 is any."""
    workers: list[Adopted] = []
    for record in sorted(left, key=lambda record: record.identity.start_ticks):  # the eldest surely serve
        taken = {_inode(worker.listener) for worker in workers if worker.listener is not None}
        worker = await _worker(record, launcher, state_dir, host, port, taken)
        if worker is not None:
            workers.append(worker)
    replicas = tuple(record for record in left if _REPLICA.fullmatch(record.id) and record.identity.alive)
    kept = {worker.process.pid for worker in workers}.union(record.pid for record in replicas)
    await launcher.end(record for record in left if record.pid not in kept)
    return Leftovers(replicas=replicas, workers=tuple(workers))


async def _worker(
    record: ReplicaRecord,
    launcher: LocalLauncher,
    state_dir: Path,
    host: str,
    port: int,
    taken: Collection[int],
) -> Adopted | None:
    """`taken` are the sockets at which one goes on already."""
    kind = _WORKER.fullmatch(record.id)
    process = await launcher.adopt(record) if kind else None
    if kind is None or process is None:
        return None
    worker_id, given = int(kind[2]), None
    if kind[1] == "gateway":
        given = handover.take(handover.path(state_dir, worker_id), lambda: record.identity.alive)
    if given is not None and listeners.is_at(given, host, port) and _inode(given) not in taken:
        listeners.admit(given)
        log.info("gateway worker %d goes on with pid %d", worker_id, record.pid)
        return Adopted(worker_id=worker_id, process=process, listener=given)
    if given is not None:
        given.close()
    process.rename(f"retired-{worker_id}")
    process.send(RETIRE)
    log.info("the gateway worker with pid %d finishes what it carries", record.pid)
    return Adopted(worker_id=worker_id, process=process, listener=None)


def _inode(listener: socket.socket) -> int:
    """The same for every copy of a socket, whatever process has it."""
    return os.fstat(listener.fileno()).st_ino
