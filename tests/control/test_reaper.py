"""Orphans are collected by who is given them, and a child that somebody waits for is left to that one."""

import asyncio
import ctypes
import os
import subprocess
import sys

import pytest

from autoglm_serve.control.reaper import LOOK_S, collect_orphans
from autoglm_serve.launch.process import dead_children
from autoglm_serve.runtime.tasks import running
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.process

_SUBREAPER = 36
_LEAVES_AN_ORPHAN = "import os; pid = os.fork(); os._exit(0) if pid else os._exit(0 if os.read(0, 1) else 1)"


def an_orphan() -> set[int]:
    """A process that has been left to us, and has ended."""
    read, write = os.pipe()
    subprocess.run([sys.executable, "-c", _LEAVES_AN_ORPHAN], stdin=read, check=True)
    before = set(dead_children(os.getpid()))
    os.write(write, b"x")
    while not (orphans := set(dead_children(os.getpid())) - before):
        pass
    os.close(read)
    os.close(write)
    return orphans


def test_an_orphan_that_is_dead_for_two_looks_is_collected() -> None:
    async def story(orphans: set[int]) -> None:
        clock = FakeClock()
        async with running(collect_orphans(clock)):
            await clock.advance(LOOK_S)
            assert orphans <= set(dead_children(os.getpid()))
            await clock.advance(LOOK_S)
            assert not orphans & set(dead_children(os.getpid()))

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        asyncio.run(asyncio.wait_for(story(an_orphan()), 20))
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)
