"""The service's own address: its gateway workers' listening sockets, and the claim that no one else has it.

One SO_REUSEPORT socket a worker, all on one port: the kernel spreads connections over them. They are made
here and inherited, so that a worker that dies leaves its socket, and the connections queued on it, to its
successor.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from autoglm_serve.core.errors import ConfigError, PortTaken
from autoglm_serve.probe.ports import holder_of

BACKLOG = 4096


def dialled(host: str) -> str:
    """Where somebody on this machine reaches what listens on `host`: "any address" is none to call."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def local_url(host: str, port: int, *, tls: bool = False) -> str:
    """The address by which somebody on this machine reaches what listens on `host`."""
    shown, scheme = dialled(host), "https" if tls else "http"
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def listen(host: str, port: int, count: int) -> tuple[socket.socket, ...]:
    """`count` listening sockets on one port; port 0 takes any free one.

    Raises PortTaken, which names the program that has it, or ConfigError for an address that is not ours.
    """
    family = _family(host)
    with _new_socket(family) as trial:  # without SO_REUSEPORT: it fails if anybody has the port, even so
        _bind(trial, host, port)
        port = trial.getsockname()[1]
    return tuple(_listener(family, host, port) for _ in range(count))


def beside(listeners: Sequence[socket.socket], count: int) -> tuple[socket.socket, ...]:
    """`listeners` and as many more on their address as make `count`; the address is ours already."""
    first = listeners[0]
    host, port = first.getsockname()[:2]
    missing = range(count - len(listeners))
    return (*listeners, *(_listener(first.family, host, port) for _ in missing))


def admit_no_more(listener: socket.socket) -> None:
    """Nobody new reaches the queue of this socket, and who is in it can still be taken.

    Closing resets what is queued, though its request may have arrived. So the kernel drops each SYN first: a
    client asks again after a second, and is refused by then. Where it cannot be told to, nothing changes.
    """
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(steps))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def admit(listener: socket.socket) -> None:
    """Undo `admit_no_more`, in a socket whose service was killed while it stopped."""
    with suppress(OSError):  # there was nothing to undo
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags of the TCP header
    (0x45, 0, 1, 0x02),  # SYN is set: go on, else skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)
"""BPF: code, jump if true, jump if false, value."""


def is_at(listener: socket.socket, host: str, port: int) -> bool:
    """This socket listens where `listen(host, port, …)` would; port 0 is any."""
    found = listener.getsockname()
    with suppress(OSError):
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return found[0] in addresses and port in (0, found[1])
    return False


def _listener(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = _new_socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(listener, host, port)
    listener.listen(BACKLOG)
    return listener


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    new = socket.socket(family)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return new


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ConfigError(
            f"{host} is no address of this machine.",
            why=str(error),
            next_step="Give --host an address such as 127.0.0.1, or 0.0.0.0 for every interface.",
        ) from error


def _bind(new: socket.socket, host: str, port: int) -> None:
    try:
        new.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"Port {port} is taken by {holder_of(port) or 'another program'}.",
                next_step="Stop it, or choose another port with --port.",
            ) from error
        if error.errno == errno.EACCES:
            raise ConfigError(
                f"Port {port} needs more rights than this user has.",
                next_step="Choose a port of 1024 or above with --port.",
            ) from error
        raise ConfigError(
            f"Cannot listen on {host} port {port}.",
            why=error.strerror or str(error),
            next_step="Give --host an address of this machine.",
        ) from error
