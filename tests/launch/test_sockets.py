"""Where engines listen, and who else could."""

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from autoglm_serve.engines.base import Command
from autoglm_serve.gateway.wire.upstream import Pool
from autoglm_serve.launch import sockets, tcp_sockets
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.orphans import end_orphans
from autoglm_serve.launch.ports import PortLease
from autoglm_serve.launch.records import Records
from tests.fakes.other_account import AS_ROOT, begins

LISTENS = """
taken = socket.socket(); taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
taken.bind(("127.0.0.1", int(sys.argv[1]))); taken.listen()
print("here", flush=True)
while True: taken.accept()
"""


def test_no_two_processes_are_given_one_address(tmp_path: Path) -> None:
    paths = {sockets.fresh(tmp_path, "r0").path for _ in range(50)}
    assert len(paths) == 50
    assert {path.parent for path in paths if path} == {tmp_path / "engines"}


def test_the_folder_is_closed_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = sockets.fresh(tmp_path, "r0").path
    finally:
        os.umask(before)
    assert path is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_state_directory_with_a_long_name_has_its_sockets_elsewhere_and_they_go(tmp_path: Path) -> None:
    listen = sockets.fresh(tmp_path / ("long" * 30), "r0")
    assert listen.path is not None
    folder = listen.path.parent
    assert folder.parent == Path("/tmp")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(listen.path))
    sockets.remove(listen)
    assert not folder.exists()


def test_what_an_earlier_service_left_is_found_by_its_socket_and_ends_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        started = await LocalLauncher(tmp_path).start(
            "r0",
            lambda listen: Command(argv=("/bin/sh", "-c", f"touch {listen.path}; sleep 60")),
            placement=None,  # type: ignore[arg-type]
            takes_unix=True,
        )
        assert started.listens
        path = started.listen.path
        assert path is not None
        (found,) = Records(tmp_path).read_all()
        assert found.listen == started.listen
        while not path.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await end_orphans(tmp_path, [found], grace_s=0.1)
        assert not path.exists()

    asyncio.run(story())


def test_a_port_is_held_by_whoever_listens_on_it() -> None:
    with PortLease() as lease:
        assert not tcp_sockets.held_by(lease.port, [os.getpid()])  # a lease does not listen
        with socket.create_server(("127.0.0.1", lease.port)):
            assert tcp_sockets.held_by(lease.port, [os.getpid()])
            assert not tcp_sockets.held_by(lease.port, [os.getppid()])
            assert tcp_sockets.is_ours(lease.port)


@AS_ROOT
@pytest.mark.process
def test_a_port_that_another_account_took_is_not_connected_to() -> None:
    with PortLease() as lease, begins(LISTENS, str(lease.port)) as thief:
        try:
            assert thief.stdout is not None
            assert thief.stdout.readline() == "here\n"
            assert not tcp_sockets.is_ours(lease.port)
            assert not tcp_sockets.held_by(lease.port, [os.getpid()])

            async def connect() -> None:
                pool = Pool(asyncio.get_running_loop())
                url = f"http://127.0.0.1:{lease.port}"
                with pytest.raises(ConnectionRefusedError, match="another account"):
                    await pool.connect(url, ours=True)
                (await pool.connect(url)).close()  # an address that others keep may be anybody's

            asyncio.run(connect())
        finally:
            thief.kill()


def test_a_full_queue_of_a_unix_socket_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "full.sock"
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(str(path))
            busy.listen(0)
            busy.setblocking(False)
            pool = Pool(asyncio.get_running_loop())
            first = await pool.connect(f"unix:{path}")
            second = asyncio.ensure_future(pool.connect(f"unix:{path}"))
            await asyncio.wait((second,), timeout=0.05)
            assert not second.done()
            busy.accept()[0].close()
            (await second).close()
            first.close()

    asyncio.run(story())
