"""Handing a listening socket from one process to another over a unix socket.

A gateway worker outlives the control plane that made its listening socket. The next control plane asks the
worker for a copy, so that the socket, and the connections queued on it, never close.
"""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from autoglm_serve.launch import unix_socket

HURRY = signal.SIGUSR1
"""Tells a gateway worker to end what it carries at once, with a word to each client."""
_ANSWER_S = 2.0
_LOOK_S = 0.01


def path(state_dir: Path, worker_id: int) -> Path:
    """Where the gateway worker on this worker_id gives its socket."""
    return state_dir / f"listener-{worker_id}.sock"


def is_door(path: Path) -> bool:
    """Some worker gives its socket there."""
    return path.name.startswith("listener-") and path.suffix == ".sock"


class Giver:
    """The worker's end: whoever connects gets a copy of the socket. The folder keeps strangers out."""

    def __init__(self, door: Path, gift: socket.socket) -> None:
        self._path = door
        self._gift = gift
        self._door = unix_socket.listener(door)
        self._door.listen()
        self._door.setblocking(False)

    def watch(
        self,
        add_reader: Callable[[int, Callable[[], None]], None],
        remove_reader: Callable[[int], object],
    ) -> None:
        """Answer from an event loop, whose methods these are."""
        self._add_reader, self._remove_reader = add_reader, remove_reader
        add_reader(self._door.fileno(), self._give)

    def keep(self) -> None:
        """Open the door again if somebody has deleted it. Called now and then."""
        if self._path.exists():
            return
        with suppress(OSError):  # its folder is gone too, and comes back
            door = unix_socket.listener(self._path)
            door.listen()
            door.setblocking(False)
            self._remove_reader(self._door.fileno())
            self._door.close()
            self._door = door
            self._add_reader(door.fileno(), self._give)

    def close(self) -> None:
        """Give no more."""
        self._remove_reader(self._door.fileno())
        self._door.close()
        self._path.unlink(missing_ok=True)

    def _give(self) -> None:
        with suppress(OSError):  # they left
            taker, _ = self._door.accept()
            with taker:
                socket.send_fds(taker, [b"x"], [self._gift.fileno()])


def take(door: Path, alive: Callable[[], bool], *, patience_s: float = 3.0) -> socket.socket | None:
    """A copy of the socket that the process behind `door` gives; None if it does not.

    A process that has just been started may not have opened its door yet; it is waited for while `alive`.
    """
    address, deadline_s = unix_socket.address(door), time.monotonic() + patience_s
    while alive() and time.monotonic() < deadline_s:
        with socket.socket(socket.AF_UNIX) as line, suppress(OSError):
            line.settimeout(_ANSWER_S)
            line.connect(address)
            _, descriptors, _, _ = socket.recv_fds(line, 1, 1)
            if descriptors:
                os.set_inheritable(descriptors[0], False)
                return socket.socket(fileno=descriptors[0])
        time.sleep(_LOOK_S)
    return None
