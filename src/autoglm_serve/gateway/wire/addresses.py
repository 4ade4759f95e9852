"""Addresses of media that clients name, and which of them may be fetched. Pure.

The operator names hosts. An address of the own network is never one of those unless it is written down as
such: a name may lead anywhere, and tomorrow elsewhere.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

ANY = "*"
LONGEST = 4096
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")
_TARGET = re.compile(r"[!-~]*")
_EMBEDS = tuple(map(ipaddress.IPv6Network, ("2002::/16", "64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
"""IPv6 addresses that lead to an IPv4 address inside them."""

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaAddress:
    """One http or https URL, taken apart once: what is checked is what is asked."""

    secure: bool
    host: str
    """A name in lower case, or an address of numbers without brackets."""
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["https" if self.secure else "http"]
        return host if self.port == usual else f"{host}:{self.port}"


def parse(url: str) -> MediaAddress:
    """Raises ValueError for what two parsers could read differently, and for what is no http address."""
    if len(url) > LONGEST or not _TARGET.fullmatch(url) or "\\" in url:
        raise ValueError("it has characters that an address has not, or is too long")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or parts.username is not None or parts.password is not None:
        raise ValueError("it is no plain http or https address")
    host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]
    if not _is_ip(host) and (not _NAME.fullmatch(host) or _could_be_numbers(host)):
        raise ValueError("it names no host")
    target = parts.path or "/"
    return MediaAddress(
        secure=parts.scheme == "https",
        host=host,
        port=port,
        target=f"{target}?{parts.query}" if parts.query else target,
    )


def is_allowed(address: MediaAddress, hosts: Sequence[str]) -> bool:
    """Whether the operator has let this host be fetched from: HOST, *.DOMAIN, or *, each with :PORT or for
    the usual ports alone."""
    return any(_matches(address, host.lower()) for host in hosts)


def may_connect(ip: str, address: MediaAddress, hosts: Sequence[str]) -> bool:
    """Whether what the host's name leads to may be connected to: the public network, or an address that the
    operator has written down himself."""
    found = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return _is_public(found) or (_is_ip(address.host) and address.host in map(_host_of, hosts))


def _is_public(ip: Ip) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _EMBEDS):
        return False
    return ip.is_global and not ip.is_multicast


def _matches(address: MediaAddress, allowed: str) -> bool:
    host = _host_of(allowed)
    port = allowed.removeprefix(f"[{host}]").removeprefix(host).removeprefix(":")
    if address.port != int(port) if port.isdigit() else address.port not in _PORTS.values():
        return False
    if host.startswith("*."):
        return address.host.endswith(host[1:])
    return host in (ANY, address.host)


def _host_of(allowed: str) -> str:
    """Of HOST, HOST:PORT, [V6]:PORT or a bare V6."""
    if allowed.startswith("["):
        return allowed[1:].partition("]")[0]
    return allowed if allowed.count(":") > 1 else allowed.partition(":")[0]


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _could_be_numbers(host: str) -> bool:
    """127.1, 0x7f.1, 2130706433: addresses to some resolvers, by their last label."""
    last = host.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")
