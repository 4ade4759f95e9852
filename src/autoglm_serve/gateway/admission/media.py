"""Pictures in a request: how large they are, read from their headers and never decoded. Pure.

Knows PNG, JPEG, WebP and GIF. What is no picture is told apart from what is one but too large to see.
"""

import base64
import binascii
from collections.abc import Callable

_FIRST_LOOK = 4096  # base64 characters: enough for every header but that of a JPEG with a large Exif part
_LONGEST_LOOK = 1 << 21


class NotAPicture(ValueError):
    """Its message says what is wrong with the data URL or the bytes in it."""


def size_of_data_url(url: str) -> tuple[int, int]:
    """Width and height in pixels of the picture in a base64 data URL. Raises NotAPicture."""
    head, comma, payload = url.partition(",")
    if not comma or not head.startswith("data:"):
        raise NotAPicture("is not a data URL (data:image/png;base64,…)")
    if not head.endswith(";base64"):
        raise NotAPicture("is a data URL without ;base64")
    look = _FIRST_LOOK
    while True:
        data = _decode(payload[:look])
        size = size_of(data)
        if size is not None:
            _check_end(payload)
            return size
        if look >= len(payload) or look >= _LONGEST_LOOK or not data.startswith(b"\xff\xd8"):
            raise NotAPicture("is no PNG, JPEG, WebP or GIF picture, or is cut off in its header")
        look *= 8


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first bytes of a picture; None if they are not in `data`."""
    for magic, reader in _READERS.items():
        if data.startswith(magic):
            size = reader(data)
            return size if size is not None and min(size) > 0 else None
    return None


def _decode(payload: str) -> bytes:
    try:
        return base64.b64decode(payload[: len(payload) // 4 * 4], validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotAPicture(f"is not valid base64 ({error})") from None


def _check_end(payload: str) -> None:
    """A cut-off upload shows at the end: base64 comes in fours, and padding only there."""
    if len(payload) % 4:
        raise NotAPicture("is not valid base64 (its length is no multiple of 4: it was cut off)")
    _decode(payload[-4:])


def _png(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _gif(data: bytes) -> tuple[int, int] | None:
    if len(data) < 10 or data[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def _webp(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30 or data[8:12] != b"WEBP":
        return None
    match data[12:16]:
        case b"VP8 ":
            return (
                int.from_bytes(data[26:28], "little") & 0x3FFF,
                int.from_bytes(data[28:30], "little") & 0x3FFF,
            )
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case _:
            return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the first start of frame. Source: ITU T.81, annex B."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no payload
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_READERS: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
    b"GIF8": _gif,
}
