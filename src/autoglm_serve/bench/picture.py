"""Screenshots that were never sent before, in any number, at the cost of copying them.

Phone agents never send a picture twice, so no cache must know one. Encoding 1080x2400 pixels takes a PNG
encoder 30 ms and more; here that is done once for each of some pages, and every picture is such a page with a
last row of its own, whose compressed bytes and checksums are all that is computed. Format: RFC 2083 (PNG),
RFC 1951 (deflate).
"""

import base64
import random
import struct
import zlib
from dataclasses import dataclass

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_NOISE_SHARE = 0.12
"""Of the page: photographs. It makes a screen of 1080x2400 about as large as a phone's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenPage:
    """A screen without its last row: the bytes of its PNG so far."""

    width_px: int
    head: bytes
    """Signature, IHDR, and one IDAT that ends on a byte of the deflate stream."""
    adler: int
    """Of the rows so far, for zlib's checksum over all of them."""

    def png(self, seed: int) -> bytes:
        """The whole picture; another one for every seed."""
        row = b"\0" + random.Random(seed).randbytes(3 * self.width_px)
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        tail = packer.compress(row) + packer.flush()
        return self.head + _chunk(b"IDAT", tail + struct.pack(">I", zlib.adler32(row, self.adler))) + _END


def page(width_px: int, height_px: int, seed: int) -> ScreenPage:
    """A page of boxes, lines and one photograph-like field. Takes some 100 ms at 1080x2400."""
    dice = random.Random(seed)
    rows = b"".join(_rows(width_px, height_px - 1, dice))
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = b"\x78\x01" + packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    head = _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed)
    return ScreenPage(width_px=width_px, head=head, adler=zlib.adler32(rows))


def _rows(width_px: int, count: int, dice: random.Random) -> list[bytes]:
    rows: list[bytes] = []
    noisy = int(count * _NOISE_SHARE)
    at = dice.randrange(max(1, count - noisy))
    while len(rows) < count:
        if at <= len(rows) < at + noisy:
            rows.append(b"\0" + dice.randbytes(3 * width_px))
            continue
        cut = dice.randrange(1, max(2, width_px))
        left, right = dice.randbytes(3), dice.randbytes(3)
        line = b"\0" + left * cut + right * (width_px - cut)
        rows += [line] * min(dice.randrange(4, 120), count - len(rows))
    return rows


def data_url(picture: bytes, media_type: str) -> str:
    return f"data:image/{media_type};base64,{base64.b64encode(picture).decode()}"


def jpeg(png: bytes, quality: int = 85) -> bytes:
    """The same picture as a JPEG. Raises ImportError where Pillow is not installed."""
    import io

    from PIL import Image

    packed = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(packed, "JPEG", quality=quality)
    return packed.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
