"""HTTP/1.1 messages as this gateway holds them, and the bytes of the heads that it writes."""

from collections.abc import Mapping
from http import HTTPStatus

Headers = tuple[tuple[bytes, bytes], ...]

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b"Unknown")) for status in range(100, 600)
}


def is_event_stream(headers: Headers) -> bool:
    """Of events, or of lines of JSON."""
    kinds = (b"text/event-stream", b"application/x-ndjson")
    return dict(headers).get(b"content-type", b"").lower().startswith(kinds)


def ends_with_connection(headers: Mapping[bytes, bytes]) -> bool:
    """A reply without a length ends when the connection does."""
    return b"content-length" not in headers and b"transfer-encoding" not in headers


class Pieces:
    """A body as it arrives: whole reads are kept as they are, small pieces are put together.

    A list of every piece would take thirty times the size of a body in chunks of two bytes; growing one
    buffer and copying it in the end would hold up the loop for a tenth of a second with 64 MiB.
    """

    __slots__ = ("_kept", "_size", "_small")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._small = bytearray()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if len(data) >= _WHOLE_PIECE_BYTES:
            self._keep_small()
            self._kept.append(data)
            return
        self._small += data
        if len(self._small) >= _WHOLE_PIECE_BYTES:
            self._keep_small()

    def _keep_small(self) -> None:
        if self._small:
            self._kept.append(bytes(self._small))
            self._small.clear()

    def joined(self) -> bytes:
        """All of it; of more than 1 MiB other threads may run meanwhile, as CPython joins bytes."""
        self._keep_small()
        return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)


_WHOLE_PIECE_BYTES = 16 * 1024


class Request:
    """One complete request. Header names are lower case; a repeated header keeps its last value."""

    __slots__ = (
        *("_body", "headers", "held_bytes", "http10", "id", "keep_alive", "loopback", "method", "path"),
        *("peer", "started_s", "target"),
    )

    def __init__(
        self,
        *,
        method: bytes,
        path: str,
        target: str = "",
        headers: dict[bytes, bytes],
        body: "bytes | Pieces",
        started_s: float,
        keep_alive: bool = True,
        http10: bool = False,
        loopback: bool = True,
        peer: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.target = target
        """Path and query as they came."""
        self.headers = headers
        self._body = body
        self.started_s = started_s
        """Monotonic seconds at its first byte."""
        self.keep_alive = keep_alive
        self.http10 = http10
        self.loopback = loopback
        """It came from this machine."""
        self.peer = peer
        """The address that it came from."""
        self.held_bytes = 0
        """What is held for it until it is answered."""
        self.id = b""
        """Its name in logs, for the engine and in the answer; given by who handles it."""

    @property
    def body(self) -> bytes:
        """The body in one piece. A large one is best joined away from the loop."""
        if isinstance(self._body, Pieces):
            self._body = self._body.joined()
        return self._body

    @property
    def body_bytes(self) -> int:
        """The body's size, without joining it."""
        return len(self._body)


def status_line(status: int) -> bytes:
    return _STATUS_LINES[status]


def header_lines(headers: Headers) -> bytes:
    """Their lines in a head. What ends the head is not among them."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def request_head(method: bytes, path: str, host: bytes, headers: Headers, body_bytes: int) -> bytes:
    """The head of a request with a body of `body_bytes`, for a keep-alive connection."""
    line = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, path.encode("ascii", "replace"), host)
    return line + header_lines(headers) + b"content-length: %d\r\n\r\n" % body_bytes


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
