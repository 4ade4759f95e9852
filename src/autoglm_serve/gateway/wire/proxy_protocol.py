"""PROXY protocol, version 1 and 2: what a proxy says of its client before the client's own bytes. Pure.

The form is HAProxy's, doc/proxy-protocol.txt.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST_V1 = 107
_MOST_BYTES = 4096
_SIZES = {1: 4, 2: 16}
"""Bytes of an address, by the family in version 2."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """A client that a proxy has introduced."""

    peer: str
    """Its address; empty where the proxy speaks for itself."""
    size_bytes: int
    """Of the introduction; what follows is the client's."""


class NotYet(Exception):
    """More has to arrive before it can be told."""


class BadIntroduction(ValueError):
    """It begins as one and is none."""


def introduction(data: bytes) -> Introduction | None:
    """The introduction that these bytes begin with; None where they begin with none.

    Raises NotYet and BadIntroduction.
    """
    if data.startswith(_V2):
        return _version_2(data)
    if data.startswith(_V1):
        return _version_1(data)
    if _V1.startswith(data) or _V2.startswith(data):
        raise NotYet
    return None


def _version_1(data: bytes) -> Introduction:
    line, end, _ = data[: _LONGEST_V1 + 1].partition(b"\r\n")
    if not end:
        if len(data) > _LONGEST_V1:
            raise BadIntroduction("its line has no end")
        raise NotYet
    match line.split(b" "):
        case [_, b"UNKNOWN", *_]:
            return Introduction("", len(line) + 2)
        case [_, b"TCP4" | b"TCP6", source, _, _, _]:
            return Introduction(_address(source.decode("latin-1")), len(line) + 2)
    raise BadIntroduction("its line is none of TCP4, TCP6 and UNKNOWN")


def _version_2(data: bytes) -> Introduction:
    if len(data) < len(_V2) + 4:
        raise NotYet
    version, family, size_bytes = struct.unpack_from("!BBH", data, len(_V2))
    begin = len(_V2) + 4
    if version >> 4 != 2 or version & 0xF > 1 or size_bytes > _MOST_BYTES:
        raise BadIntroduction("its version or its length is none")
    if len(data) < begin + size_bytes:
        raise NotYet
    address_bytes = _SIZES.get(family >> 4)
    if version & 0xF == 0 or address_bytes is None:  # the proxy's own check, or no internet address
        return Introduction("", begin + size_bytes)
    if size_bytes < 2 * address_bytes + 4:
        raise BadIntroduction("its addresses are cut off")
    return Introduction(str(ip_address(data[begin : begin + address_bytes])), begin + size_bytes)


def _address(said: str) -> str:
    try:
        return str(ip_address(said))
    except ValueError:
        raise BadIntroduction("its address is none") from None
