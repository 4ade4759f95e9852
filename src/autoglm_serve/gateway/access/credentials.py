"""The secret that a request brings, as clients of each API write it. Pure."""

from collections.abc import Mapping

from autoglm_serve.core.refusal import Refusal

_BARE = (b"x-api-key", b"api-key")
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


def presented(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The secret in `Authorization: Bearer`, `x-api-key` or `api-key`; None where there is none.

    Raises Refusal where two of them differ: nobody could say who asks.
    """
    scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
    found = secret.strip() if scheme.lower() == b"bearer" else b""
    for name in _BARE:
        bare = headers.get(name)
        if not bare:
            continue
        if found and bare != found:
            raise unauthorized("different_keys", "Two different API keys came with the request; send one.")
        found = bare
    return found or None


def unauthorized(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, headers=_CHALLENGE)
