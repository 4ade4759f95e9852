"""The requests that arrive on one connection, one after the other, llhttp for the parsing.

Owns what is known of the one that arrives: its head and body within their sizes, and how far it is. When it
has to be there, whose it is, and what becomes of it is for who is told (`Arrivals`).
"""

import logging
from collections.abc import Mapping
from typing import Protocol

import httptools

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.wire.envelope import internal_error
from autoglm_serve.gateway.wire.http import Pieces, Request
from autoglm_serve.gateway.wire.limits import ConnectionLimits, body_too_large, head_too_large

log = logging.getLogger(__name__)

_ANNOUNCED_BYTES = 256 * 1024  # held in advance for a body that does not say how long it is
_MOST_OFFERS = 8
"""To upgrade, in what arrives at once. Each has what follows it read again."""
_ONCE = frozenset({b"host", b"transfer-encoding", b"content-encoding", b"authorization"})
"""Headers of which a proxy in front may have read the one, and we the other."""
_VERSIONS = frozenset({"1.0", "1.1"})


class Arrivals(Protocol):
    """Who is told of what arrives. Each may raise Refusal, which ends what is read."""

    def on_begin(self) -> float:
        """A request begins. The time is returned."""
        ...

    def on_head(self, headers: Mapping[bytes, bytes]) -> None:
        """Its head is there, and nothing of its body yet."""
        ...

    def hold(self, size_bytes: int) -> None:
        """So much more of it is kept until it is answered."""
        ...

    def on_request(self, request: Request) -> None:
        """It is whole."""
        ...


class RequestReader:
    """What arrives on one connection from `peer`."""

    def __init__(self, limits: ConnectionLimits, arrivals: Arrivals, peer: str, *, loopback: bool) -> None:
        self._limits = limits
        self._most_fields = 2 * limits.max_headers
        self._arrivals = arrivals
        self.peer = peer
        self.loopback = loopback
        self._parser = httptools.HttpRequestParser(self)
        self._dry_bytes = 0
        """Taken by the parser, which has called nobody since."""
        self._moved = False
        self._fields: list[bytes] = []
        """Names and values of the head's lines in turn, and then of the trailer's, which are no headers."""
        self._reset()

    def _reset(self) -> None:
        """Ready for the next request to arrive."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._fields.clear()
        self._body: bytes | Pieces = b""
        self.body_bytes = 0
        """Of the body so far."""
        self.expected_bytes = 0
        """Of the body, where its head says it."""
        self.held_bytes = 0
        """What is held for it."""
        self.in_body = False
        """Its head is there."""
        self.asks_first = False
        """It waits for 100 Continue."""
        self.begun_s = 0.0
        """When its first byte came; 0 while nothing of a request is here."""

    @property
    def path(self) -> str:
        """Of what arrives, as far as it is known."""
        return path_of(self._url.decode("latin-1"))

    def let_go(self) -> None:
        del self._parser  # it holds us as we hold it

    def expects(self, size_bytes: int) -> bool:
        """So many bytes would all be of the body that arrives."""
        return self.body_bytes + size_bytes <= self.expected_bytes

    def feed(self, data: bytes | memoryview) -> None:
        """Read on. Raises Refusal, after which nothing more can be read."""
        self._moved = False
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            raise _why_unparsed(error) from None
        if self._moved:
            self._dry_bytes = 0
            return
        # One endless header, trailer or chunk extension: the parser keeps it and calls nobody.
        self._dry_bytes += len(data)
        if self._dry_bytes > self._limits.max_head_bytes:
            raise head_too_large(self._limits)

    def _feed(self, data: bytes | memoryview) -> None:
        for _ in range(_MOST_OFFERS):
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            else:
                return
        raise _bad_http("it offers to upgrade again and again")

    def _without_upgrade(self, rest: bytes | memoryview) -> bytes:
        """Pass over an offer to upgrade, as RFC 9110 allows: Java's client offers h2c with its first POST.

        llhttp takes what follows the head for another protocol, so the head is read again without the offer.
        """
        method, url, version = self._parser.get_method(), self._url, self._parser.get_http_version()
        lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
        lines += [b"%b: %b" % line for line in self._lines() if line[0] != b"upgrade"]
        self._reset()
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(rest)

    def _lines(self) -> "zip[tuple[bytes, bytes]]":
        return zip(self._fields[::2], self._fields[1::2], strict=True)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self.begun_s = self._arrivals.on_begin()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        if len(fields) >= self._most_fields:
            raise head_too_large(self._limits)
        fields += (name.lower(), value)

    def on_headers_complete(self) -> None:
        self._moved = self.in_body = True
        if sum(map(len, self._fields)) + len(self._url) > self._limits.max_head_bytes:
            raise head_too_large(self._limits)
        if self._parser.should_upgrade():
            if self._parser.get_method() == b"CONNECT":
                raise _bad_http("this is no proxy, CONNECT goes nowhere")
            return
        headers = self._headers = dict(self._lines())
        if 2 * len(headers) < len(self._fields):
            _refuse_repeated(self._fields[::2])
        length = self.expected_bytes = self._expect_body(headers)
        self._arrivals.on_head(headers)
        if length:
            self.hold(length)

    def _expect_body(self, headers: Mapping[bytes, bytes]) -> int:
        """The size of the body, as far as the head says it."""
        version, coding = self._parser.get_http_version(), headers.get(b"transfer-encoding")
        if version not in _VERSIONS:
            raise _bad_http(f"HTTP/{version} is not spoken here")
        if coding is not None and coding.lower() != b"chunked":
            raise _bad_http("its transfer-encoding is not chunked")
        length = int(headers.get(b"content-length", b"0"))
        if length > self._limits.max_body_bytes:
            raise body_too_large(self._limits)
        if (length or coding) and b"expect" in headers:
            self.asks_first = headers[b"expect"].lower() == b"100-continue" and version != "1.0"
        return length

    def on_body(self, data: bytes) -> None:
        self._moved = True
        self.body_bytes += len(data)
        if self.body_bytes > self._limits.max_body_bytes:
            raise body_too_large(self._limits)
        if self.body_bytes > self.held_bytes:
            self.hold(_ANNOUNCED_BYTES)
        if self.body_bytes == len(data):  # most bodies come at once
            self._body = data
            return
        if not isinstance(self._body, Pieces):
            first, self._body = self._body, Pieces()
            self._body.add(first)
        self._body.add(data)

    def hold(self, size_bytes: int) -> None:
        self._arrivals.hold(size_bytes)
        self.held_bytes += size_bytes

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            return
        target = self._url.decode("latin-1")
        request = Request(
            method=parser.get_method(),
            path=path_of(target),
            target=target,
            headers=self._headers,
            body=self._body,
            started_s=self.begun_s,
            keep_alive=parser.should_keep_alive(),
            http10=parser.get_http_version() == "1.0",
            loopback=self.loopback,
            peer=self.peer,
        )
        request.held_bytes = self.held_bytes
        self._moved = True
        self._reset()
        self._arrivals.on_request(request)


def path_of(target: str) -> str:
    """The path of a request's target, which a proxy may send in absolute form (RFC 9112, 3.2.2)."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def _refuse_repeated(names: list[bytes]) -> None:
    """A header that comes twice, where others may have read the other one. Any other keeps its last value."""
    for name in _ONCE:
        if names.count(name) > 1:
            raise _bad_http(f"it has two headers {name.decode('latin-1')}")


def _why_unparsed(error: httptools.HttpParserError) -> Refusal:
    """The refusal for what the parser would not take, or for what one of our callbacks raised in it."""
    cause = error.__context__
    if cause is None:
        return _bad_http(str(error))
    if isinstance(cause, Refusal):
        return cause
    log.error("a bug in the gateway ended a request", exc_info=cause)
    return internal_error()


def _bad_http(why: str) -> Refusal:
    return Refusal(400, "bad_http", f"This is not a valid HTTP/1.1 request: {why}.")
