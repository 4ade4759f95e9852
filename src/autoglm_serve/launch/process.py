"""Processes by identity: a pid alone is reused, a pid with its start time is not.

Owns what the kernel tells of a process, of the session it leads and of who left that, and how all of them
are ended. Knows nothing of engines.
"""

import asyncio
import os
import signal
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = PROC / "sys/kernel/random/boot_id"
MARK = "_AUTOGLM_PROCESS"
"""A variable that is another for each process we start: a child that leaves the session keeps it."""
KILL_DEADLINE_S = 5.0
"""How long a process may take to vanish after SIGKILL (a GPU driver can hold it for seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process, for all time: no other has the same three."""

    pid: int
    start_ticks: int
    """Clock ticks from boot to its start: field 22 of /proc/PID/stat."""
    boot_id: str
    mark: str = ""
    """Its own value of the variable MARK, which what it starts inherits; empty where it was given none."""

    @classmethod
    def of(cls, pid: int, mark: str = "") -> "ProcessIdentity | None":
        """The process that has this pid now; None where there is none."""
        stat = _stat(pid)
        if stat is None:
            return None
        return cls(pid=pid, start_ticks=stat.start_ticks, boot_id=boot_id(), mark=mark)

    @property
    def alive(self) -> bool:
        stat = _stat(self.pid)
        if stat is None or stat.zombie:
            return False
        return stat.start_ticks == self.start_ticks and boot_id() == self.boot_id

    @property
    def computing(self) -> bool:
        """It has a processor, or waits for one or for the disk: what it does takes long, and goes on."""
        stat = _stat(self.pid)
        return stat is not None and stat.state in (b"R", b"D")

    def family(self) -> "tuple[ProcessIdentity, ...]":
        """The living processes of the session it leads or led, those that left it, and what they started.

        Who left is known by a parent that is of the family, or, once that has ended, by the mark. Who has the
        mark in a session that a stranger leads did not leave: a person has copied an engine's variables.
        While a member of the session lives the kernel gives its leader's pid to nobody else. So if another
        process has that pid today, none of the session is left.
        """
        if boot_id() != self.boot_id:
            return ()
        pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
        stats = {pid: stat for pid in pids if (stat := _stat(pid)) is not None}
        holder = stats.get(self.pid)
        reused = holder is not None and holder.start_ticks != self.start_ticks
        ours = {pid for pid, stat in stats.items() if stat.session == self.pid and not reused}
        younger = {pid for pid, stat in stats.items() if stat.start_ticks >= self.start_ticks}
        marked = {pid for pid in younger - ours if self._has_marked(pid)} if self.mark else set()
        strange = stats.keys() - marked - ours - {pid for pid, stat in stats.items() if stat.zombie}
        ours |= {pid for pid in marked if stats[pid].session not in strange}
        while more := {pid for pid, stat in stats.items() if stat.parent in ours} - ours:
            ours |= more
        return tuple(
            ProcessIdentity(pid=pid, start_ticks=stats[pid].start_ticks, boot_id=self.boot_id)
            for pid in sorted(ours)
            if not stats[pid].zombie
        )

    def _has_marked(self, pid: int) -> bool:
        with suppress(OSError):  # it is gone, or somebody else's
            environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
            return f"{MARK}={self.mark}".encode() in environment
        return False


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    session: int
    start_ticks: int
    state: bytes

    @property
    def zombie(self) -> bool:
        return self.state in (b"Z", b"X")


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: hidepid=1, it is not ours
        return None
    # The second field is the program's name in parentheses and may hold anything, so count from behind it.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Stat(
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        state=fields[0],
    )


def dead_children(parent: int) -> tuple[int, ...]:
    """Those that have ended and that nobody has collected."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    stats = ((pid, _stat(pid)) for pid in pids)
    return tuple(pid for pid, stat in stats if stat is not None and stat.parent == parent and stat.zombie)


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


async def gone(pidfd: int) -> None:
    """Returns when the process of this pidfd has ended, whether it is our child or not."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def notice() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(pidfd, notice)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)


async def end_session(leader: ProcessIdentity, grace_s: float) -> None:
    """Ends the leader and its family: SIGTERM to the leader, the grace, then SIGKILL to all.

    Only the leader is asked: an engine's workers that get SIGTERM beside it would cut what it still finishes.
    """
    known = leader.family()  # now, while parents tell
    if grace_s > 0:
        await _end((leader,), signal.SIGTERM, grace_s)
    while members := {*leader.family(), *(one for one in known if one.alive)}:
        if not await _end(members, signal.SIGKILL, KILL_DEADLINE_S):
            return


def kill_session(leader: ProcessIdentity) -> None:
    """SIGKILL to the whole family, without waiting for it to be gone."""
    with ExitStack() as opened:
        for member in leader.family():
            if (pidfd := _opened(member, opened)) is not None:
                _signal(pidfd, signal.SIGKILL)


async def _end(processes: Collection[ProcessIdentity], number: signal.Signals, timeout_s: float) -> bool:
    """Signals them all; true when all are gone in time."""
    with ExitStack() as opened:
        pidfds = [pidfd for process in processes if (pidfd := _opened(process, opened)) is not None]
        for pidfd in pidfds:
            _signal(pidfd, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for pidfd in pidfds:
                    await gone(pidfd)
            return True
    return False


def _opened(process: ProcessIdentity, until: ExitStack) -> int | None:
    """A pidfd that is this very process's: opened first, compared after, so that no reuse slips between."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    until.callback(os.close, pidfd)
    return pidfd if process.alive else None


def _signal(pidfd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it is gone, or runs as somebody else by now (sudo)
        signal.pidfd_send_signal(pidfd, number)
