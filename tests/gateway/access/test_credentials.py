"""Where a secret is looked for in a request."""

import pytest

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.access.credentials import presented


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({b"authorization": b"Bearer s"}, b"s"),
        ({b"authorization": b"bearer   s "}, b"s"),
        ({b"x-api-key": b"s"}, b"s"),
        ({b"api-key": b"s"}, b"s"),
        ({b"authorization": b"Bearer s", b"x-api-key": b"s", b"api-key": b"s"}, b"s"),
        ({b"authorization": b"Basic czpz", b"x-api-key": b"s"}, b"s"),
        ({b"authorization": b"s"}, None),
        ({b"authorization": b"Basic czpz"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({b"authorization": b"Bearer\ts"}, None),
        ({b"cookie": b"api-key=s"}, None),
        ({}, None),
    ],
)
def test_a_secret_is_where_clients_of_each_api_put_it(
    headers: dict[bytes, bytes], secret: bytes | None
) -> None:
    assert presented(headers) == secret


def test_two_that_differ_are_nobodys() -> None:
    with pytest.raises(Refusal) as refused:
        presented({b"authorization": b"Bearer a", b"x-api-key": b"b"})
    assert (refused.value.status, refused.value.code) == (401, "different_keys")
