"""A connection by a trusted proxy, until it is known for whom: then it is the client's.

Stands before `ClientConnection` only where the operator trusts proxies.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.proxy_protocol import BadIntroduction, NotYet, introduction

log = logging.getLogger(__name__)


class ProxiedConnection(asyncio.Protocol):
    """Reads what the proxy says of its client, if it says anything."""

    def __init__(
        self,
        client: ClientConnection,
        trusts: Callable[[str], bool],
        loop: asyncio.AbstractEventLoop,
        patience_s: float,
    ) -> None:
        self._client = client
        self._trusts = trusts
        self._loop = loop
        self._patience_s = patience_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = name[0] if isinstance(name, tuple) else ""
        if not self._trusts(self._peer):
            self._hand_over("")
            return
        self._client.for_many = True
        self._timer = self._loop.call_later(self._patience_s, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            told = introduction(self._data)
        except NotYet:
            return
        except BadIntroduction as problem:
            log.warning("the proxy at %s introduces a client badly: %s", self._peer, problem)
            self._timer.cancel()
            self._transport.abort()
            return
        self._timer.cancel()
        if told is not None and told.peer:
            self._client.for_many = False
        self._hand_over(told.peer if told is not None else "")
        rest = self._data[told.size_bytes :] if told is not None else self._data
        if rest:
            self._client.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()

    def _hand_over(self, peer: str) -> None:
        self._client.introduced_as = peer
        self._transport.set_protocol(self._client)
        self._client.connection_made(self._transport)
