"""Which addresses are taken apart, which are allowed, and what their names may lead to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.addresses import is_allowed, may_connect, parse


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("http://a.example/x.png", "a.example", 80, "/x.png"),
        ("https://A.example./x?y=1#z", "a.example", 443, "/x?y=1"),
        ("https://a.example:8443", "a.example", 8443, "/"),
        ("http://10.0.0.1/", "10.0.0.1", 80, "/"),
        ("http://[::1]:81/", "::1", 81, "/"),
    ],
)
def test_an_address_is_taken_apart(url: str, host: str, port: int, target: str) -> None:
    found = parse(url)
    assert (found.host, found.port, found.target) == (host, port, target)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.example/", "file:///etc/passwd", "//a.example/", "/etc/passwd", "http://", "http:///x"),
        *("http://user@a.example/", "http://a.example\\@evil.example/", "http://a b/", "http://a\t.example/"),
        *(
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://0x7f000001/",
        ),
        *("http://a.example:99999/", "http://a.example:x/", "http://ä.example/", "http://[::1/", "http://-/"),
        "http://a.example/" + "x" * 5000,
    ],
)
def test_what_two_parsers_could_read_differently_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse(url)


@given(st.text(max_size=60))
def test_whatever_is_written_is_an_address_or_is_not(text: str) -> None:
    try:
        found = parse("http://" + text)
    except ValueError:
        return
    assert found.host.isascii()
    assert found.target.startswith("/")
    assert not set(found.authority + found.target) & set(" \r\n\t\\")


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        ("http://a.example/", ("a.example",), True),
        ("http://b.a.example/", ("a.example",), False),
        ("http://b.a.example/", ("*.a.example",), True),
        ("http://a.example/", ("*.a.example",), False),
        ("http://evila.example/", ("*.a.example", "a.example"), False),
        ("http://a.example:8080/", ("a.example",), False),
        ("http://a.example:8080/", ("a.example:8080",), True),
        ("http://a.example/", ("a.example:8080",), False),
        ("http://any.example/", ("*",), True),
        ("http://any.example:22/", ("*",), False),
        ("http://[::1]:81/", ("[::1]:81",), True),
        ("http://a.example/", (), False),
    ],
)
def test_hosts_that_the_operator_has_named_are_allowed(
    url: str, hosts: tuple[str, ...], allowed: bool
) -> None:
    assert is_allowed(parse(url), hosts) is allowed


PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"),
    *("198.18.0.1", "192.0.2.1", "2001:db8::1"),
)


@pytest.mark.parametrize("ip", PRIVATE)
def test_no_name_leads_into_the_own_network(ip: str) -> None:
    for hosts in (("*",), ("a.example",), (ip,)):
        assert not may_connect(ip, parse("http://a.example/"), hosts)


@pytest.mark.parametrize("ip", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_a_name_may_lead_to_the_public_network(ip: str) -> None:
    assert may_connect(ip, parse("http://a.example/"), ("a.example",))


def test_an_address_of_the_own_network_is_asked_where_it_is_written_down() -> None:
    assert may_connect("10.0.0.5", parse("http://10.0.0.5:9000/"), ("10.0.0.5:9000",))
    assert not may_connect("10.0.0.5", parse("http://10.0.0.5/"), ("*",))
