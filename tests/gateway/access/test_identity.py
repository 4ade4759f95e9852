"""Who asks, and what a request is called."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.access.identity import RequestIds, holder, identify
from autoglm_serve.gateway.access.keyring import Keyring
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.keys.key import Key, Scope, digest
from autoglm_serve.keys.table import table_of

KEYS = st.binary(max_size=20)


def request(headers: dict[bytes, bytes], peer: str = "10.0.0.1", *, loopback: bool = False) -> Request:
    return Request(
        method=b"POST", path="/", headers=headers, body=b"", started_s=0, peer=peer, loopback=loopback
    )


OPEN = Keyring((), required=False)


def keyring(*keys: Key) -> Keyring:
    ring = Keyring((), required=True)
    ring.table = table_of(keys)
    return ring


RING = keyring(*(Key(id=name, sha256=digest(name.encode())) for name in ("one", "two")))


def bearer(secret: bytes) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + secret}


@given(KEYS, KEYS)
def test_made_up_keys_do_not_make_another_machine_many(one: bytes, other: bytes) -> None:
    peer = "10.0.0.1"
    assert {holder(peer, bearer(key), OPEN, loopback=False) for key in (one, other)} == {peer}


@given(KEYS, st.booleans())
def test_who_has_the_bytes_of_a_request_has_all_else_of_it(key: bytes, loopback: bool) -> None:
    headers = {b"authorization": key}
    known = identify(request(headers, loopback=loopback), OPEN)
    assert known.holder == holder("10.0.0.1", headers, OPEN, loopback=loopback)


def test_those_behind_a_proxy_on_this_machine_are_told_apart() -> None:
    keys = [bearer(b"a"), bearer(b"b"), {}]
    assert len({holder("127.0.0.1", headers, OPEN, loopback=True) for headers in keys}) == 3
    assert len({identify(request(headers), OPEN).name for headers in keys}) == 3


def test_with_keys_a_client_is_its_key_wherever_it_comes_from() -> None:
    here, there = (identify(request(bearer(b"one"), peer), RING) for peer in ("10.0.0.1", "10.0.0.2"))
    assert here == there
    assert here.holder == holder("10.0.0.3", bearer(b"one"), RING, loopback=False)
    assert here != identify(request(bearer(b"two")), RING)


@pytest.mark.parametrize("headers", [{}, bearer(b"other"), bearer(b"ONE"), bearer("ｏｎｅ".encode())])
def test_who_has_no_key_is_nobody(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Refusal) as refused:
        identify(request(headers), RING)
    assert refused.value.status == 401
    assert (b"www-authenticate", b"Bearer") in refused.value.headers


def test_a_body_without_a_key_is_refused_before_it_comes() -> None:
    assert holder("10.0.0.1", {b"content-length": b"0"}, RING, loopback=False) == "10.0.0.1"
    for length in ({b"content-length": b"9"}, {b"transfer-encoding": b"chunked"}):
        with pytest.raises(Refusal):
            holder("10.0.0.1", length, RING, loopback=False)


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (Key(id="k", sha256=digest(b"s"), revoked_s=1), 401),
        (Key(id="k", sha256=digest(b"s"), expires_s=1), 401),
        (Key(id="k", sha256=digest(b"s"), expires_s=1 << 40), 0),
        (Key(id="k", sha256=digest(b"s"), scopes=frozenset({Scope.METRICS, Scope.ADMIN})), 403),
        (Key(id="k", sha256=digest(b"s"), paths=("/v1/models",)), 403),
        (Key(id="k", sha256=digest(b"s"), paths=("/*",)), 0),
    ],
)
def test_a_key_opens_what_is_its_own(key: Key, status: int) -> None:
    try:
        assert identify(request(bearer(b"s")), keyring(key)).key == key
        got = 0
    except Refusal as refusal:
        got = refusal.status
    assert got == status


def test_files_that_go_or_break_leave_the_door_shut(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ring = Keyring((path,), required=False)
    ring.load()
    assert not ring.guarded
    path.write_text("0123456789abcdef\n")
    ring.load()
    for text in ("", "{", None):
        path.unlink() if text is None else path.write_text(text)
        ring.load()
        assert ring.guarded
        assert identify(request(bearer(b"0123456789abcdef")), ring)
    broken = Keyring((tmp_path / "broken",), required=False)
    (tmp_path / "broken").write_text("{")
    broken.load()
    with pytest.raises(Refusal):
        identify(request({}), broken)


def test_a_clients_own_id_is_kept_as_far_as_it_can_be_spoken() -> None:
    ids = RequestIds()
    assert ids.of(request({b"x-request-id": b"abc-1"})) == b"abc-1"
    assert ids.of(request({b"x-request-id": b"x" * 200})) == b"x" * 128


@pytest.mark.parametrize("said", [b"", b"two words", b"\x1b[31m", b"caf\xc3\xa9", None])
def test_where_there_is_none_to_speak_of_one_is_made(said: bytes | None) -> None:
    headers = {} if said is None else {b"x-request-id": said}
    ids, others = RequestIds(), RequestIds()
    made = [each.of(request(headers)) for each in (ids, ids, others)]
    assert len(set(made)) == 3
    assert all(each.isascii() and each.strip() == each != b"" for each in made)
