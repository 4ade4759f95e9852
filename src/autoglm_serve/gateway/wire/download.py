"""One GET of a client's picture, from an address that has been looked up already.

Knows sockets and HTTP; whether the address may be asked is decided before. Nothing is kept alive, nothing is
sent but the request, and what comes is bounded in size and time.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass, field

import httptools

from autoglm_serve.gateway.wire.addresses import MediaAddress

_MOST_HEAD_BYTES = 32 * 1024
_READ_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class NotFetched(Exception):
    """Its words are for the client, and tell nothing of this network."""


@dataclass(slots=True)
class MediaDownload:
    """What was answered, as the parser tells it."""

    most_bytes: int
    status: int = 0
    location: str = ""
    """Where a redirect leads."""
    whole: bool = False
    sized: bool = False
    """It says where it ends; an answer that does not ends with the connection."""
    _body: bytearray = field(default_factory=bytearray)
    _head_bytes: int = 0

    @property
    def redirects(self) -> bool:
        return self.status in _REDIRECTS and bool(self.location)

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MOST_HEAD_BYTES:
            raise NotFetched("its server's answer has a head without end")
        self.sized |= name.lower() in (b"content-length", b"transfer-encoding")
        if name.lower() == b"location":
            self.location = value.decode("latin-1")
        if name.lower() == b"content-encoding" and value.lower() != b"identity":
            raise NotFetched("its server compresses it though it was not asked to")
        if name.lower() == b"content-length" and int(value) > self.most_bytes:
            raise NotFetched(self._too_large())

    def on_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self.most_bytes:
            raise NotFetched(self._too_large())

    def on_message_complete(self) -> None:
        self.whole = True

    def _too_large(self) -> str:
        return f"it is larger than {self.most_bytes >> 20} MiB"


async def get(address: MediaAddress, ip: str, *, most_bytes: int) -> MediaDownload:
    """Ask this IP address and no other. Raises NotFetched; the caller sets the time."""
    tls = ssl.create_default_context() if address.secure else None
    try:
        reader, writer = await asyncio.open_connection(
            ip,
            address.port,
            ssl=tls,
            server_hostname=address.host if tls else None,
            family=socket.AF_INET6 if ":" in ip else socket.AF_INET,
            flags=socket.AI_NUMERICHOST,
        )
    except ssl.SSLError as error:
        raise NotFetched("its server's certificate is not valid for it") from error
    except OSError as error:
        raise NotFetched("its server takes no connection") from error
    try:
        writer.write(_request(address))
        return await _answer(reader, MediaDownload(most_bytes))
    finally:
        writer.transport.abort()


def _request(address: MediaAddress) -> bytes:
    lines = (
        f"GET {address.target} HTTP/1.1",
        f"Host: {address.authority}",
        "User-Agent: autoglm-serve",
        "Accept: image/*, audio/*, video/*",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, found: MediaDownload) -> MediaDownload:
    parser = httptools.HttpResponseParser(found)
    head_bytes = 0
    try:
        while not found.whole and (data := await reader.read(_READ_BYTES)):
            parser.feed_data(data)
            found.status = parser.get_status_code()
            head_bytes = 0 if found._body else head_bytes + len(data)
            if head_bytes > 2 * _MOST_HEAD_BYTES + _READ_BYTES:
                raise NotFetched("its server's answer has a head without end")
            if found.redirects:
                return found
    except httptools.HttpParserError as error:
        raise (
            error.__context__
            if isinstance(error.__context__, NotFetched)
            else NotFetched("what its server answers is no HTTP")
        ) from error
    except OSError as error:
        raise NotFetched("its server broke the connection") from error
    if not found.whole and (found.sized or not found.status):
        raise NotFetched("its server ended in the middle of it")
    return found
