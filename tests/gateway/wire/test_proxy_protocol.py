"""What a proxy says of its client in front of the client's bytes."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.proxy_protocol import (
    BadIntroduction,
    Introduction,
    NotYet,
    introduction,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"GET / HTTP/1.1\r\n"


def version_2(peer: str, more: bytes = b"", command: int = 1) -> bytes:
    address = ip_address(peer).packed
    family = 0x11 if len(address) == 4 else 0x21
    body = address * 2 + struct.pack("!HH", 1, 2) + more
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


@pytest.mark.parametrize(
    ("said", "peer"),
    [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n", "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", ""),
        (b"PROXY UNKNOWN whatever follows\r\n", ""),
        (version_2("203.0.113.7"), "203.0.113.7"),
        (version_2("2001:db8::7", b"\x03\x00\x04abcd"), "2001:db8::7"),
        (version_2("203.0.113.7", command=0), ""),
    ],
)
def test_an_introduction_is_read_at_every_cut(said: bytes, peer: str) -> None:
    assert introduction(said + REST) == Introduction(peer, len(said))
    for cut in range(len(said)):
        with pytest.raises(NotYet):
            introduction(said[:cut])


@pytest.mark.parametrize(
    "said",
    [
        b"PROXY TCP4 203.0.113.7\r\n",
        b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n",
        b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE + struct.pack("!BBH", 0x31, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 4) + bytes(4),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65_535),
    ],
)
def test_what_begins_as_one_and_is_none_is_refused(said: bytes) -> None:
    with pytest.raises(BadIntroduction):
        introduction(said)


@pytest.mark.parametrize("said", [REST, b"POST /v1", b"PRI * HTTP/2.0", b"\r\n\r\nGET"])
def test_a_request_is_none(said: bytes) -> None:
    assert introduction(said) is None


@given(st.binary(max_size=150))
def test_no_bytes_are_more_than_a_mistake(data: bytes) -> None:
    try:
        found = introduction(data)
    except (NotYet, BadIntroduction):
        return
    assert found is None or found.size_bytes <= len(data)
