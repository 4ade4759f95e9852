"""The first process of a container is given every orphan in it; one that nobody collects stays for ever.

Our own children are collected as they end. So whoever is dead for two looks is nobody's.
"""

import os
from contextlib import suppress

from autoglm_serve.launch.process import dead_children
from autoglm_serve.runtime.clock import Clock

LOOK_S = 5.0


def is_first() -> bool:
    """Orphans are this process's."""
    return os.getpid() == 1


async def collect_orphans(clock: Clock) -> None:
    """Looks until cancelled."""
    before: frozenset[int] = frozenset()
    while True:
        await clock.sleep(LOOK_S)
        dead = frozenset(dead_children(os.getpid()))
        for pid in dead & before:
            _collect(pid)
        before = dead


def _collect(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
