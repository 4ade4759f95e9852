"""A leased port is ours until an engine listens on it, and costs nobody a connection."""

import errno
import socket

import pytest

from autoglm_serve.launch.ports import PortLease
from tests.fakes.engine_process import running_engine


def bind(port: int, *options: int) -> socket.socket:
    new = socket.socket()
    for option in options:
        new.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        new.bind(("127.0.0.1", port))
    except OSError:
        new.close()
        raise
    return new


def test_leases_of_the_same_time_differ() -> None:
    leases = [PortLease() for _ in range(200)]
    assert len({lease.port for lease in leases}) == 200
    for lease in leases:
        lease.close()


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_the_kernel_gives_a_leased_port_to_nobody_who_asks_for_any(options: tuple[int, ...]) -> None:
    """A narrow range of ports would prove it faster; this asks for thousands."""
    with PortLease() as lease:
        for _ in range(20):
            others = [bind(0, *options) for _ in range(100)]
            assert lease.port not in {other.getsockname()[1] for other in others}
            for other in others:
                other.close()


def test_an_outgoing_connection_does_not_get_it_either() -> None:
    with PortLease() as lease, bind(0) as server:
        server.listen(600)
        clients = []
        for _ in range(500):
            clients.append(socket.create_connection(server.getsockname()))
            server.accept()[0].close()
        assert lease.port not in {client.getsockname()[1] for client in clients}
        for client in clients:
            client.close()


def test_a_program_that_does_not_know_of_the_lease_cannot_take_it() -> None:
    with PortLease() as lease, pytest.raises(OSError, match="in use") as taken:
        bind(lease.port)
    assert taken.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("options", [(socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_an_engine_can_listen_on_it_and_gets_every_connection(options: tuple[int, ...]) -> None:
    with PortLease() as lease, bind(lease.port, *options) as engine:
        engine.listen(16)
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", lease.port), timeout=5) as client:
                accepted, address = engine.accept()
                assert address == client.getsockname()
                accepted.close()


def test_nobody_answers_on_it_before_the_engine_does() -> None:
    with PortLease() as lease, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", lease.port), timeout=5)


def test_a_child_process_does_not_inherit_it() -> None:
    with PortLease() as lease:
        assert not lease._socket.get_inheritable()


@pytest.mark.process
def test_an_engine_process_binds_while_we_hold() -> None:
    with PortLease() as lease, running_engine("--port", str(lease.port)) as engine:
        assert engine.port == lease.port
        assert engine.ask("GET", "/health") == {"status": "ok"}
