"""Addresses of those who connect. Pure."""

from ipaddress import IPv6Address, ip_address


def usual(said: str) -> str:
    """An address in the form that all have here: no port, no brackets, no IPv4 in IPv6; empty for none."""
    if said.startswith("["):
        said = said[1:].partition("]")[0]
    elif said.count(":") == 1:
        said = said.partition(":")[0]
    try:
        address = ip_address(said.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def is_loopback(peer: str) -> bool:
    return peer.startswith("127.") or peer in ("::1", "::ffff:127.0.0.1")


def site_of(peer: str) -> str:
    """Who is one client by its address: of IPv6 the first 64 bits, for whoever has one has them all."""
    if ":" not in peer:
        return peer
    try:
        address = IPv6Address(peer.partition("%")[0])
    except ValueError:
        return peer
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
