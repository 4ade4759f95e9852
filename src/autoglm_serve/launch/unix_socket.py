"""Unix sockets at paths of any length."""

import http.client
import os
import socket
from contextlib import ExitStack
from pathlib import Path

_LONGEST = 107  # bytes of a path that the kernel takes


def fits(path: Path) -> bool:
    """The kernel takes the path as it is."""
    return len(os.fsencode(path)) <= _LONGEST


def address(path: Path) -> str:
    """An address for a socket at `path`; a long one is reached through a descriptor of its folder.

    The descriptor stays open with the process: ask once for each path.
    """
    if fits(path):
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"


def listener(path: Path) -> socket.socket:
    """A socket bound to `path`, in place of one that an earlier process may have left there."""
    path.unlink(missing_ok=True)
    with ExitStack() as unless_bound:
        bound = unless_bound.enter_context(socket.socket(socket.AF_UNIX))
        bound.bind(address(path))
        unless_bound.pop_all()
        return bound


def http_connection(path: Path, *, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to what answers HTTP there; the caller closes it. Raises OSError."""
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    with ExitStack() as unless_connected:
        line = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
        line.settimeout(timeout_s)
        line.connect(address(path))
        unless_connected.pop_all()
        connection.sock = line
        return connection
