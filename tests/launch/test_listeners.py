"""The service's own sockets, with the real kernel."""

import socket

import pytest

from autoglm_serve.launch.listeners import admit, admit_no_more, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_is_queued_is_still_taken_when_nobody_new_is_admitted(host: str) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("no IPv6 here")
    (listener,) = listen(host, 0, 1)
    address = listener.getsockname()[:2]
    with listener, socket.create_connection(address, timeout=5) as early:
        admit_no_more(listener)
        early.sendall(b"asked")
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        taken, _ = listener.accept()
        with taken:
            assert taken.recv(16) == b"asked"
            taken.sendall(b"answered")
            assert early.recv(16) == b"answered"
        admit(listener)
        socket.create_connection(address, timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_closed_socket_is_left_alone() -> None:
    (listener,) = listen("127.0.0.1", 0, 1)
    listener.close()
    admit_no_more(listener)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True
