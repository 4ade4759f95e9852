"""Whose requests a proxy passes on, where the operator trusts it to say so. Pure.

What anybody else says in `X-Forwarded-For` is not heard. Each proxy on the way adds at the end whom it heard
from, so the list is read from there: the first that is no trusted proxy is the client.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from autoglm_serve.gateway.wire.peers import usual

_MOST_KNOWN = 4096


class Proxies:
    """The trusted ones."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        """Addresses, or networks as 10.0.0.0/8."""
        self._networks = tuple(ip_network(each) for each in networks)
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, peer: str) -> bool:
        known = self._known.get(peer)
        if known is None:
            address = usual(peer)
            known = bool(address) and any(ip_address(address) in network for network in self._networks)
            if len(self._known) < _MOST_KNOWN:
                self._known[peer] = known
        return known

    def client_of(self, peer: str, headers: Mapping[bytes, bytes]) -> str:
        """The address of who asked; that of the last proxy that can be believed, where none is told."""
        if not self.trusts(peer):
            return peer
        told = headers.get(b"x-forwarded-for", b"").decode("latin-1")
        for each in reversed(told.split(",")):
            address = usual(each.strip())
            if not address:
                return peer
            peer = address
            if not self.trusts(address):
                break
        return peer
