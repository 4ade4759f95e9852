"""What an earlier control plane left running after it was killed: found again, and ended where it is no use.

A process is ours if its pid, start time and boot are those recorded; a name proves nothing. Only who holds
the state directory's lock may end them: they would be a living service's replicas otherwise.
"""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from autoglm_serve.launch import sockets
from autoglm_serve.launch.process import end_session
from autoglm_serve.launch.records import Records, ReplicaRecord

logger = logging.getLogger(__name__)


def find_orphans(state_dir: Path) -> tuple[ReplicaRecord, ...]:
    """Every recorded process of which something still runs; the records of the others are removed."""
    records = Records(state_dir)
    orphans = []
    for record in records.read_all():
        if record.identity.family():
            orphans.append(record)
        else:
            records.remove(record.id)
            sockets.remove(record.listen)
    return tuple(orphans)


async def end_orphans(state_dir: Path, orphans: Iterable[ReplicaRecord], *, grace_s: float = 2.0) -> None:
    """Ends these, with their families, and forgets them."""
    orphans, records = tuple(orphans), Records(state_dir)
    await asyncio.gather(*(end_session(orphan.identity, grace_s) for orphan in orphans))
    for orphan in orphans:
        records.remove(orphan.id)
        sockets.remove(orphan.listen)
        logger.warning("%s: pid %d of an earlier service still ran; ended it", orphan.id, orphan.pid)
