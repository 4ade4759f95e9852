"""What of the gateway workers of an earlier control plane goes on: who hands over its listening socket.

Called at the start, by whoever holds the state directory's lock.
"""

import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.control.workers.gateway_workers import Adopted
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


async def inherit(
    left: Sequence[ReplicaRecord], launcher: LocalLauncher, state_dir: Path, host: str, port: int
) -> Leftovers:
    """Sorts what was left. Ends the workers that hand over no socket at this address; port 0 is any."""
    workers = [
        worker
        for record in left
        if (worker := await _worker(record, launcher, state_dir, host, port)) is not None
    ]
    replicas = tuple(record for record in left if _REPLICA.fullmatch(record.id) and record.identity.alive)
    kept = {worker.process.record.id for worker in workers}.union(record.id for record in replicas)
    await launcher.end(record for record in left if record.id not in kept)
    return Leftovers(replicas=replicas, workers=tuple(workers))


async def _worker(
    record: ReplicaRecord, launcher: LocalLauncher, state_dir: Path, host: str, port: int
) -> Adopted | None:
    kind = _WORKER.fullmatch(record.id)
    process = await launcher.adopt(record) if kind else None
    if kind is None or process is None:
        return None
    if kind[1] == "retired":
        return Adopted(worker_id=int(kind[2]), process=process, listener=None)
    path = handover.path(state_dir, int(kind[2]))
    given = handover.take(path, lambda: record.identity.alive)
    if given is None or not listeners.is_at(given, host, port):
        if given is not None:
            given.close()
        return None
    listeners.admit(given)
    log.info("gateway worker %s goes on with pid %d", kind[2], record.pid)
    return Adopted(worker_id=int(kind[2]), process=process, listener=given)
