"""A free loopback port that stays ours until an engine listens on it.

Asking the kernel for a free port, closing it and telling an engine its number leaves a gap in which anyone
may take it. A lease keeps a socket bound to the port and never listens on it. Linux then gives the port to
nobody who asks for any free one, yet lets an engine bind it, because both set SO_REUSEADDR (cpp-httplib,
uvicorn, vLLM and SGLang do) and nobody listens. Connections go to sockets that listen, so none is lost here.
"""

import socket
from types import TracebackType

LOOPBACK = "127.0.0.1"


class PortLease:
    """Holds one port; close it once the engine listens, or when the engine is gone."""

    def __init__(self, host: str = LOOPBACK) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((host, 0))
        self._port: int = self._socket.getsockname()[1]

    @property
    def port(self) -> int:
        return self._port

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "PortLease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
