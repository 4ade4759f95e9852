"""A request as it is meant, from the ways in which clients write one. Pure.

Compressed bodies, other character sets, half a surrogate pair, paths with a slash too many: each has one
meaning, and engines know one spelling of it.
"""

import codecs
import re
import zlib
from collections.abc import Mapping
from urllib.parse import unquote

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS

MAX_INFLATED_BYTES = 16 << 20
"""Of a compressed body: it says nothing of its size before."""

_SLICE_BYTES = 1 << 16
_CHARSET = re.compile(rb'charset="?([A-Za-z0-9._-]{1,40})', re.IGNORECASE)
_UTF_8 = frozenset({"utf-8", "ascii"})
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_OUR_PATHS = frozenset({"/v1/models"})


def usual_path(path: str) -> str:
    """The path that is meant: percent-encoded, with slashes too many, without its /v1, or with two."""
    if path in ENDPOINTS:
        return path
    steps = [step for step in unquote(path).split("/") if step]
    while steps[:2] == ["v1", "v1"]:
        del steps[0]
    usual = "/" + "/".join(steps)
    with_version = "/v1" + usual
    known = with_version in ENDPOINTS or with_version in _OUR_PATHS or usual.startswith("/models/")
    return with_version if known else usual


def plain_json(body: bytes, headers: Mapping[bytes, bytes]) -> bytes:
    """The body as UTF-8, neither compressed nor marked. Raises Refusal."""
    content_type = headers.get(b"content-type", b"")
    if body[:1] == b"{" and b"content-encoding" not in headers and b";" not in content_type:
        return body
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in (b"identity", b""):
        body = _inflated(body, coding.decode("latin-1"))
    charset = _charset(body, content_type)
    if charset is None:
        return body
    try:
        return body.decode(charset).removeprefix("\ufeff").encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise Refusal(400, "invalid_json", f"The body is not valid {charset}: {error.reason}.") from None


def without_half_pairs(body: bytes) -> bytes:
    """Half a surrogate pair, which no text can hold, becomes the replacement character, as browsers do it."""
    return _SURROGATE.sub(lambda found: found[1] + (found[2] if len(found[2]) > 6 else b"\\ufffd"), body)


def _charset(body: bytes, content_type: bytes) -> str | None:
    """What the body has to be decoded from; None where it is UTF-8 as it stands."""
    marked = next((charset for mark, charset in _BYTE_ORDER_MARKS if body.startswith(mark)), None)
    if marked is not None:
        return marked
    said = _CHARSET.search(content_type) if b"charset" in content_type.lower() else None
    if said is None:
        return None
    try:
        name = codecs.lookup(said[1].decode()).name
    except LookupError:
        message = f"The charset {said[1].decode()!r} is not known here. Send UTF-8."
        raise Refusal(415, "unsupported_charset", message) from None
    return None if name in _UTF_8 else name


def _inflated(body: bytes, coding: str) -> bytes:
    if coding not in ("gzip", "x-gzip", "deflate"):
        message = f"The content-encoding {coding[:40]!r} is not known here; gzip and deflate are, and none."
        raise Refusal(415, "unsupported_encoding", message)
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    pieces: list[bytes] = []
    size_bytes, rest = 0, body
    try:
        while rest and not stream.eof:
            pieces.append(stream.decompress(rest, _SLICE_BYTES))
            size_bytes += len(pieces[-1])
            if size_bytes > MAX_INFLATED_BYTES:
                most = f"{MAX_INFLATED_BYTES >> 20} MiB"
                raise Refusal(413, "body_too_large", f"The body is larger than {most} when it is unpacked.")
            rest = stream.unconsumed_tail
    except zlib.error as error:
        raise Refusal(400, "invalid_encoding", f"The body is not valid {coding}: {error}.") from None
    if not stream.eof:
        raise Refusal(400, "invalid_encoding", f"The body is not valid {coding}: it breaks off.")
    return b"".join(pieces)
