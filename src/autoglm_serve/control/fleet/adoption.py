"""What an earlier control plane left running, sorted into what goes on and what is ended.

A gateway worker goes on if it hands over its listening socket, a replica if its command line is the one that
would be started now and its health path answers. Called at the start, by whoever holds the state directory's
lock.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.control.fleet.places import Place, claims
from autoglm_serve.control.replica.controller import Found
from autoglm_serve.control.replica.health import Health, ask
from autoglm_serve.control.workers.gateway_workers import Adopted
from autoglm_serve.core.plan import Deployment
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch import handover, listeners
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.ports import LOOPBACK
from autoglm_serve.launch.records import ReplicaRecord

log = logging.getLogger(__name__)

_HEALTH_S = 3.0
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


async def inherit(launcher: LocalLauncher, state_dir: Path, host: str, port: int) -> Leftovers:
    """What was left. Ends the workers that do not hand over a socket at this address; port 0 is any."""
    left = launcher.left()
    workers = [
        worker for record in left if (worker := _worker(record, launcher, state_dir, host, port)) is not None
    ]
    replicas = tuple(record for record in left if _REPLICA.fullmatch(record.id) and record.identity.alive)
    kept = {worker.process.record for worker in workers}.union(replicas)
    await launcher.end(record for record in left if record not in kept)
    return Leftovers(replicas=replicas, workers=tuple(workers))


def _worker(
    record: ReplicaRecord, launcher: LocalLauncher, state_dir: Path, host: str, port: int
) -> Adopted | None:
    kind = _WORKER.fullmatch(record.id)
    process = launcher.adopt(record) if kind else None
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


async def claimed(
    deployment: Deployment,
    engines: Mapping[str, Engine],
    replicas: tuple[ReplicaRecord, ...],
    launcher: LocalLauncher,
) -> tuple[tuple[Place, ...], dict[str, Found]]:
    """The place of every replica, and the processes that go on, by id. Ends the others."""
    answers = await asyncio.gather(*(_serves(record, deployment, engines) for record in replicas))
    healthy = [record for record, serves in zip(replicas, answers, strict=True) if serves]
    posts = claims(deployment, engines, healthy)
    found = {
        place.id: Found(process=process, port=record.port)
        for place, record in posts
        if record is not None and (process := launcher.adopt(record)) is not None
    }
    await launcher.end(record for record in replicas if record.id not in found)
    return tuple(place for place, _ in posts), found


async def _serves(record: ReplicaRecord, deployment: Deployment, engines: Mapping[str, Engine]) -> bool:
    paths = {engines[member.plan.engine].health_path for member in deployment.members}
    url = f"http://{LOOPBACK}:{record.port}"
    answers = await asyncio.gather(*(ask(url, path, timeout_s=_HEALTH_S) for path in paths))
    return Health.OK in answers
