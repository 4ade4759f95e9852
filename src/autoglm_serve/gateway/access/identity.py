"""Who asks, and the name under which one request is followed.

What a client is, for turns in the queue and for what is held for it, is decided here alone: its API key, or
its address while no keys are asked for. The wire knows addresses and headers, and no clients.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.access.keyring import Keyring
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.peers import site_of
from autoglm_serve.keys.key import Key, Scope

REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128
_SPEAKABLE = re.compile(rb"[!-~]+")
"""What may stand in a log line and in a header as it is."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One client."""

    name: str
    """No two who are to be told apart have the same. Never shown, never logged."""
    holder: str
    """Who is held to account for it: see `holder`."""
    key: Key | None = None
    """What it may do; None where no keys are asked for."""


def identify(request: Request, keyring: Keyring) -> Identity:
    """Who asks for inference. Raises Refusal where that needs a key which did not come with it."""
    key = keyring.of(request, Scope.INFERENCE)
    if key is None:
        name = request.peer + request.headers.get(b"authorization", b"").decode("latin-1")
        return Identity(name, name if request.loopback else site_of(request.peer))
    name = _NAMED + key.id
    return Identity(name, name, key)


def holder(peer: str, headers: Mapping[bytes, bytes], keyring: Keyring, *, loopback: bool) -> str:
    """Who is held to account for bytes, places in the queue, retries and deaths: the key, or who has none.

    Raises Refusal for a body that comes without a key where one is needed.
    """
    if not keyring.guarded:
        return _without_key(peer, headers, loopback=loopback)
    try:
        return _NAMED + keyring.find(headers).id
    except Refusal:
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            return site_of(peer)
        raise


def _without_key(peer: str, headers: Mapping[bytes, bytes], *, loopback: bool) -> str:
    """From other machines it is the address alone, as what is sent for a key costs nothing to make up; who
    comes from this one may be a proxy for many."""
    return peer + headers.get(b"authorization", b"").decode("latin-1") if loopback else site_of(peer)


_NAMED = "key "


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
