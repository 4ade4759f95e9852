import os
import socket

from autoglm_serve.launch.ports import PortLease
from autoglm_serve.probe.ports import holder_of


def test_who_listens_is_named_with_its_pid() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        holder = holder_of(listener.getsockname()[1])
    assert holder is not None
    assert holder.endswith(f"(pid {os.getpid()})")


def test_a_port_where_nobody_listens_has_no_holder() -> None:
    with PortLease() as lease:
        assert holder_of(lease.port) is None
