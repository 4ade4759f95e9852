"""Who asks, and what a request is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.access.identity import RequestIds, holder, identify
from autoglm_serve.gateway.wire.http import Request

KEYS = st.binary(max_size=20)


def request(headers: dict[bytes, bytes], peer: str = "10.0.0.1", *, loopback: bool = False) -> Request:
    return Request(
        method=b"POST", path="/", headers=headers, body=b"", started_s=0, peer=peer, loopback=loopback
    )


def test_a_client_is_its_address_and_its_key() -> None:
    one, other = request({b"authorization": b"Bearer a"}), request({b"authorization": b"Bearer b"})
    assert identify(one) == identify(request({b"authorization": b"Bearer a"}))
    assert identify(one) != identify(other)
    assert identify(one) != identify(request({b"authorization": b"Bearer a"}, peer="10.0.0.2"))


@given(KEYS, KEYS)
def test_made_up_keys_do_not_make_another_machine_many(one: bytes, other: bytes) -> None:
    holders = {holder("10.0.0.1", {b"authorization": key}, loopback=False) for key in (one, other)}
    assert holders == {"10.0.0.1"}


@given(KEYS, st.booleans())
def test_who_has_the_bytes_of_a_request_has_all_else_of_it(key: bytes, loopback: bool) -> None:
    headers = {b"authorization": key}
    known = identify(request(headers, loopback=loopback))
    assert known.holder == holder("10.0.0.1", headers, loopback=loopback)


def test_those_behind_a_proxy_on_this_machine_are_told_apart() -> None:
    keys = [{b"authorization": b"Bearer a"}, {b"authorization": b"Bearer b"}, {}]
    assert len({holder("127.0.0.1", headers, loopback=True) for headers in keys}) == 3


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
