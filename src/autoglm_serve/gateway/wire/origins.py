"""Which web pages may read an answer (CORS): the lines of its head that say so. Pure."""

from autoglm_serve.gateway.wire.http import Request, header_lines

_EXPOSED = (b"access-control-expose-headers", b"x-autoglm-replica, x-request-id, retry-after")
"""What a page's scripts may read of an answer."""
_ANY_ORIGIN = header_lines(((b"access-control-allow-origin", b"*"), _EXPOSED))


def origin_lines(allowed: tuple[str, ...], request: Request | None) -> bytes:
    """For the answer to a request. A list of origins answers with the one that asks."""
    if "*" in allowed:
        return _ANY_ORIGIN
    origin = request.headers.get(b"origin", b"") if request is not None else b""
    if origin.decode("latin-1") not in allowed:
        return b""
    return header_lines(((b"access-control-allow-origin", origin), _EXPOSED, (b"vary", b"origin")))
