"""Who listens on a port: for the message that says it is taken."""

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


def _named(pid: int | None) -> str | None:
    """Another user's process has no pid here, and one may end while it is looked at."""
    if pid is None:
        return None
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"
