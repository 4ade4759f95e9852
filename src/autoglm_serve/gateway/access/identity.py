"""Who asks, and the name under which one request is followed.

What a client is, for turns in the queue and for what is held for it, is decided here alone: its address and
the key that it sends. The wire knows addresses and headers, and no clients.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm_serve.gateway.wire.http import Request

REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128
_SPEAKABLE = re.compile(rb"[!-~]+")
"""What may stand in a log line and in a header as it is."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One client."""

    name: str
    """Its address and its key: no two who are to be told apart have the same. Never shown, never logged."""
    holder: str
    """Who is held to account for it: see `holder`."""


def identify(request: Request) -> Identity:
    """Who sent this request."""
    name = request.peer + _key(request.headers)
    return Identity(name, name if request.loopback else request.peer)


def holder(peer: str, headers: Mapping[bytes, bytes], *, loopback: bool) -> str:
    """Who is held to account for bytes, places in the queue, retries and deaths. From other machines it is
    the address alone, as a key costs nothing to make up; who comes from this one may be a proxy for many."""
    return peer + _key(headers) if loopback else peer


class RequestIds:
    """Names for requests: the client's own, or one that no other process and no other request has."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._count = 0

    def of(self, request: Request) -> bytes:
        said = request.headers.get(REQUEST_ID)
        if said is not None and _SPEAKABLE.fullmatch(said):
            return said[:_LONGEST_ID]
        self._count += 1
        return b"%b-%x" % (self._prefix.encode(), self._count)


def _key(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"authorization", b"").decode("latin-1")
