"""Who listens on a TCP port of this machine, from /proc. Reads, and decides nothing."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = b"0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """One listening socket."""

    inode: int
    uid: int
    """Of the account that made it."""


def listening(port: int) -> tuple[Listening, ...]:
    """Every socket that listens on this port, at whichever address. Raises OSError without /proc."""
    return tuple(found for table in _TABLES if table.exists() for found in _rows(table, b"%04X" % port))


def held_by(port: int, pids: Iterable[int]) -> bool:
    """These processes have every socket that listens on the port, and there is one."""
    there = {each.inode for each in listening(port)}
    return bool(there) and there <= {inode for pid in pids for inode in _inodes(pid)}


def is_ours(port: int) -> bool:
    """No other account listens on the port."""
    return all(each.uid == os.geteuid() for each in listening(port))


def _rows(table: Path, port: bytes) -> Iterator[Listening]:
    for line in table.read_bytes().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENS and fields[1].endswith(b":" + port):
            yield Listening(inode=int(fields[9]), uid=int(fields[7]))


def _inodes(pid: int) -> Iterator[int]:
    with suppress(OSError):  # it is gone
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                name = os.readlink(entry.path)
                if name.startswith("socket:["):
                    yield int(name[8:-1])
