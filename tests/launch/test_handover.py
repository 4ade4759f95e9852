"""A listening socket survives the process that made it, with the connections that wait on it."""

import asyncio
import shutil
import socket
import time
from pathlib import Path

from autoglm_serve.launch.handover import Giver, path, take


def test_the_copy_takes_the_connections_that_waited_on_the_original(tmp_path: Path) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        original = socket.create_server(("127.0.0.1", 0))
        address = original.getsockname()
        giver = Giver(path(tmp_path, 0), original)
        giver.watch(loop.add_reader, loop.remove_reader)
        copy = await asyncio.to_thread(take, path(tmp_path, 0), lambda: True)
        giver.close()
        assert copy is not None
        with socket.create_connection(address) as client, copy:
            original.close()
            accepted, peer = copy.accept()
            accepted.close()
            assert peer == client.getsockname()

    asyncio.run(story())


def test_one_that_does_not_answer_is_not_waited_for_forever(tmp_path: Path) -> None:
    began_s = time.monotonic()
    assert take(path(tmp_path, 0), lambda: True, patience_s=0.05) is None
    assert take(path(tmp_path, 0), lambda: False) is None
    assert time.monotonic() - began_s < 2


def test_a_giver_that_closed_gives_nothing_and_leaves_no_door(tmp_path: Path) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as gift:
            giver = Giver(path(tmp_path, 3), gift)
            giver.watch(loop.add_reader, loop.remove_reader)
            giver.close()
        assert not path(tmp_path, 3).exists()

    asyncio.run(story())


def test_a_door_that_somebody_deletes_is_opened_again(tmp_path: Path) -> None:
    async def story() -> None:
        loop, folder = asyncio.get_running_loop(), tmp_path / "state"
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as gift:
            giver = Giver(path(folder, 0), gift)
            giver.watch(loop.add_reader, loop.remove_reader)
            shutil.rmtree(folder)
            giver.keep()  # its folder is not there yet
            folder.mkdir()
            giver.keep()
            copy = await asyncio.to_thread(take, path(folder, 0), lambda: True)
            giver.close()
            assert copy is not None
            with copy:
                assert copy.getsockname() == gift.getsockname()

    asyncio.run(story())
