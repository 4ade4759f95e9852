"""Under which names the service may be asked, and by whose pages."""

import pytest

from autoglm_serve.config.options import Options
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.access.doors import DoorPolicy, Doors
from autoglm_serve.gateway.wire.http import Request


def asked(*, http10: bool = False, **headers: str) -> Request:
    named = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    return Request(method=b"GET", path="/", headers=named, body=b"", started_s=0.0, http10=http10)


def answer(doors: Doors, request: Request) -> str:
    try:
        doors.check(request)
    except Refusal as refusal:
        return f"{refusal.status} {refusal.code}"
    return "in"


def by_default(**options: object) -> Doors:
    made = Options(**options)  # type: ignore[arg-type]
    return Doors(DoorPolicy(hosts=made.let_in_hosts, origins=made.allow_origin))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST:8000", "localhost.", "127.0.0.1:8000", "127.0.0.1"),
        *("[::1]:8000", "[::1]", "192.168.1.7:8000", "ai.localhost:3000", "autoglm:8000"),
    ],
)
def test_addresses_and_names_of_the_own_network_are_always_let_in(host: str) -> None:
    assert answer(by_default(), asked(host=host)) == "in"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("localhost.com", "0x7f.1", "127.1", "ai.example.com:443"),
    ],
)
def test_on_loopback_another_name_is_a_page_that_was_led_here(host: str) -> None:
    assert answer(by_default(), asked(host=host)) == "403 host_not_allowed"


def test_a_name_that_is_allowed_is_let_in_with_any_port_and_in_any_case() -> None:
    doors = by_default(allow_host=("AI.example.com",))
    assert answer(doors, asked(host="ai.EXAMPLE.com:8443")) == "in"
    assert answer(doors, asked(host="else.example.com")) == "403 host_not_allowed"
    assert answer(by_default(allow_host=("*",)), asked(host="else.example.com")) == "in"


def test_beyond_loopback_any_name_is_let_in_until_names_are_given() -> None:
    assert answer(by_default(host="0.0.0.0"), asked(host="whatever.lan")) == "in"
    named = by_default(host="0.0.0.0", allow_host=("ai.lan",))
    assert answer(named, asked(host="ai.lan")) == "in"
    assert answer(named, asked(host="10.0.0.7:8000")) == "in"
    assert answer(named, asked(host="whatever.lan")) == "403 host_not_allowed"


@pytest.mark.parametrize(
    "host", ["", "a b", "a,b", "user@localhost", "localhost:80:80", "lo\xe4l", "[::1", "/"]
)
def test_what_names_no_host_is_no_request(host: str) -> None:
    assert answer(by_default(host="0.0.0.0"), asked(host=host)) == "400 bad_http"


def test_a_request_without_a_host_is_of_http_1_0() -> None:
    assert answer(by_default(), asked()) == "400 bad_http"
    assert answer(by_default(), asked(http10=True)) == "in"


def test_what_has_passed_once_is_known_and_what_has_not_is_looked_at_again() -> None:
    doors = by_default()
    for _ in range(3):
        assert answer(doors, asked(host="localhost:1")) == "in"
        assert answer(doors, asked(host="evil.example")) == "403 host_not_allowed"
    for number in range(500):
        assert answer(doors, asked(host=f"localhost:{number}")) == "in"


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("https://page.example", "in"),
        ("http://localhost:8000", "in"),  # our own
        ("https://localhost:8000", "in"),
        ("https://other.example", "403 origin_not_allowed"),
        ("https://page.example.evil.example", "403 origin_not_allowed"),
        ("http://localhost:3000", "403 origin_not_allowed"),
        ("null", "403 origin_not_allowed"),
        ("", "403 origin_not_allowed"),
    ],
)
def test_pages_of_other_origins_get_nothing_done(origin: str, said: str) -> None:
    doors = by_default(allow_origin=("https://page.example",))
    assert answer(doors, asked(host="localhost:8000", origin=origin)) == said


def test_who_is_no_page_has_no_origin() -> None:
    assert answer(by_default(allow_origin=()), asked(host="localhost")) == "in"
    assert answer(by_default(), asked(host="localhost", origin="https://any.example")) == "in"
