"""Ends what an earlier service left running after it was killed.

A process is ours if its pid, start time and boot are those recorded; a name proves nothing. Called once at
the start, by whoever holds the state directory's lock: otherwise it would end a living service's replicas.
"""

import asyncio
import logging
from pathlib import Path

from autoglm_serve.launch.process import end_session
from autoglm_serve.launch.records import Records, ReplicaRecord

logger = logging.getLogger(__name__)


async def reap_orphans(state_dir: Path, *, grace_s: float = 2.0) -> tuple[ReplicaRecord, ...]:
    """Ends every recorded process that still runs, with its session; returns those that did."""
    records = Records(state_dir)
    found = records.read_all()
    orphans = tuple(record for record in found if record.identity.session_members())
    await asyncio.gather(*(end_session(orphan.identity, grace_s) for orphan in orphans))
    for record in found:
        records.remove(record.id)
    for orphan in orphans:
        logger.warning("%s: pid %d of an earlier service still ran; ended it", orphan.id, orphan.pid)
    return orphans
