"""Everything that a killed service left, found and ended as its successor would do it."""

from pathlib import Path

from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.records import ReplicaRecord


async def reap_leftovers(state_dir: Path, *, grace_s: float = 2.0) -> tuple[ReplicaRecord, ...]:
    """Those that still ran."""
    launcher = LocalLauncher(state_dir)
    left = await launcher.left()
    await launcher.end(left, grace_s=grace_s)
    return left
