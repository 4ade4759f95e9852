"""Whom a trusted proxy speaks for, and whom nobody else can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.access.proxies import Proxies
from autoglm_serve.gateway.wire.peers import site_of, usual

OURS = Proxies(("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"))
ADDRESSES = st.ip_addresses(v=4).map(str)


def client(peer: str, told: str) -> str:
    return OURS.client_of(peer, {b"x-forwarded-for": told.encode("latin-1")})


@pytest.mark.parametrize(
    ("peer", "told", "who"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the first was the client's own word
        ("10.0.0.1", "203.0.113.7, 10.0.0.9", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.8,10.0.0.9", "10.0.0.8"),
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, _hidden, 10.0.0.9", "10.0.0.9"),
        ("127.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("fd00::1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_the_last_who_is_no_proxy_of_ours_is_the_client(peer: str, told: str, who: str) -> None:
    assert client(peer, told) == who


@given(ADDRESSES, st.binary(max_size=60))
def test_what_a_stranger_says_changes_nothing(peer: str, told: bytes) -> None:
    if not OURS.trusts(peer):
        assert OURS.client_of(peer, {b"x-forwarded-for": told}) == peer


@given(st.binary(max_size=60), ADDRESSES)
def test_what_a_client_writes_in_front_does_not_hide_it(forged: bytes, real: str) -> None:
    if not OURS.trusts(real):
        assert OURS.client_of("10.0.0.1", {b"x-forwarded-for": forged + b"," + real.encode()}) == real


def test_without_proxies_nobody_is_trusted() -> None:
    assert not Proxies(())
    assert not Proxies(()).trusts("127.0.0.1")


def test_who_has_one_ipv6_address_is_one_client_with_all_of_them() -> None:
    assert site_of("2001:db8:1:2:3::4") == site_of("2001:db8:1:2::") != site_of("2001:db8:1:3::")
    assert site_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert site_of("10.0.0.1") == "10.0.0.1"
    assert site_of("fe80::1%eth0") == "fe80::"


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(said: str) -> None:
    assert usual(usual(said)) == usual(said)
