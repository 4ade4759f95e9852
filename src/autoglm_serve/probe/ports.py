"""Who listens on a port, and on what else."""

from collections.abc import Iterator
from pathlib import Path

import psutil


def holder_of(port: int) -> str | None:
    """ "nginx (pid 812)": the program that listens on this TCP port; None where it may not be known."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port == port:
            return _named(connection.pid)
    return None


def unix_sockets_beside(port: int) -> Iterator[Path]:
    """Those of the processes that listen on this TCP port, as far as this account may know them."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return
    pids = {
        each.pid
        for each in connections
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid
    }
    for pid in pids:
        try:
            sockets = psutil.Process(pid).net_connections(kind="unix")
        except psutil.Error:
            continue
        yield from (Path(str(each.laddr)) for each in sockets if each.laddr)


def _named(pid: int | None) -> str | None:
    """Another user's process has no pid here, and one may end while it is looked at."""
    if pid is None:
        return None
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"
