"""Pictures in a request: what they are and how large, read from their headers and never decoded. Pure.

Knows PNG, JPEG, WebP and GIF. What is no picture is told apart from what is one but too large to see. A data
URL may be written as phones and browsers write them: what it means is one thing, and how engines want it
written another.
"""

import base64
import binascii
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote

from autoglm_serve.gateway.admission.document import LongText

_FIRST_LOOK = 4096  # base64 characters: enough for every header but that of a JPEG with a large Exif part
_LONGEST_LOOK = 1 << 21
_MOST_BLOCKS = 20_000  # of a GIF: 5 MB of them, if they are full

_HEAD = re.compile(r"\s*data:([^,]{0,200}),", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*+")


class NotAPicture(ValueError):
    """Its message says what is wrong with the data URL or the bytes in it."""


class UnreadFormat(NotAPicture):
    """A picture of a format that is not read here; the message names it and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a picture's header says."""

    format: str
    """png, jpeg, webp or gif."""
    width_px: int
    height_px: int
    frames: int = 1
    turned: bool = False
    """Its Exif data says that it is to be turned or mirrored to be upright."""

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        return self.width_px * self.height_px * self.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUrl:
    """A data URL taken apart."""

    media_type: str
    """In lower case; empty where none is given."""
    base64: bool
    payload_at: int
    """Where the data starts."""
    usual: bool
    """Its head is written as engines expect it."""


def data_url(url: str) -> DataUrl | None:
    """What the head of a data URL says; None if it is none."""
    head = _HEAD.match(url)
    if head is None:
        return None
    media_type, *parameters = (part.strip().lower() for part in head.group(1).split(";"))
    usual = url.startswith(f"data:{media_type};base64,") and bool(media_type)
    return DataUrl(media_type=media_type, base64="base64" in parameters, payload_at=head.end(), usual=usual)


def picture_in(url: str) -> tuple[Picture, str | None]:
    """The picture in a data URL, and the URL as engines expect it where it is written in another way.

    Raises NotAPicture.
    """
    head = data_url(url)
    if head is None:
        raise NotAPicture("is not a data URL (data:image/png;base64,…)")
    if not head.base64:
        raise NotAPicture("is a data URL without ;base64")
    try:
        picture = picture_in_base64(url, head.payload_at)
    except NotAPicture:
        payload = _usual_payload(url, head.payload_at)
        if payload is None:
            raise
        picture = picture_in_base64(payload)
        return picture, f"data:image/{picture.format};base64,{payload}"
    if head.usual and head.media_type.startswith("image/"):
        return picture, None
    if isinstance(url, LongText):
        raise NotAPicture("is very large and not written as data:image/png;base64,…") from None
    return picture, f"data:image/{picture.format};base64,{url[head.payload_at :]}"


def picture_in_base64(text: str, at: int = 0) -> Picture:
    """The picture whose base64 stands in `text` from `at` on. Raises NotAPicture."""
    look, size = _FIRST_LOOK, text.size if isinstance(text, LongText) else len(text)
    while True:
        start = text.beginning(at + look) if isinstance(text, LongText) else text
        data = _decoded(start[at : at + look])
        picture = size_of(data)
        if picture is not None:
            _check_end(text, size - at)
            if picture.format == "jpeg":
                _check_jpeg_end(text, at)
            if picture.format == "gif":
                return _with_frames(picture, text, at)
            return replace(picture, turned=True) if is_turned(data) else picture
        if at + look >= size or look >= _LONGEST_LOOK or not data.startswith(b"\xff\xd8"):
            raise _unread(data)
        look *= 8


def media_type_of(data: bytes) -> str | None:
    """What these bytes are, by how they begin; None for what is no picture, sound or video that is known."""
    picture = size_of(data[:_LONGEST_LOOK])
    if picture is not None:
        return f"image/{picture.format}"
    return next((kind for at, magic, kind in _BEGINNINGS if data.startswith(magic, at)), None)


_BEGINNINGS = (
    (8, b"WAVE", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
)


def is_picture(text: str) -> bool:
    """This base64 begins as a picture does."""
    try:
        start = _decoded(text[:64])
    except NotAPicture:
        return False
    return start.startswith(tuple(_READERS)) and (start[:4] != b"RIFF" or start[8:12] == b"WEBP")


def is_turned(data: bytes) -> bool:
    """The Exif data in its head turns or mirrors a JPEG or PNG. Source: Exif 2.32, 4.6.4, tag 0x0112."""
    if data.startswith(b"\x89PNG"):
        return _orientation(_png_exif(data)) in range(2, 9)
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            return _orientation(data[at + 10 : at + 2 + size]) in range(2, 9)
        else:
            at += 2 + size
    return False


def _png_exif(data: bytes) -> bytes:
    """The chunk eXIf, if it stands in front of the pixels. Source: PNG, third edition, 11.3.4.5."""
    at = 8
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) != b"IDAT":
        size = int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            return data[at + 8 : at + 8 + size]
        at += 12 + size
    return b""


def _orientation(tiff: bytes) -> int:
    """The value of the tag in the first directory; 1, as it lies, where it is not there or damaged."""
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    directory = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[directory : directory + 2], order)
    for at in range(directory + 2, min(directory + 2 + 12 * entries, len(tiff) - 11), 12):
        if int.from_bytes(tiff[at : at + 2], order) == _ORIENTATION:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return 1


_ORIENTATION = 0x0112


def size_of(data: bytes) -> Picture | None:
    """What the first bytes of a picture say of it; None if they do not say it."""
    for magic, (name, reader) in _READERS.items():
        if data.startswith(magic):
            size = reader(data)
            if size is None or min(size) <= 0:
                return None
            return Picture(format=name, width_px=size[0], height_px=size[1])
    return None


def _unread(data: bytes) -> NotAPicture:
    for at, magics, name, remedy in _OTHER_FORMATS:
        if data.startswith(magics, at):
            return UnreadFormat(f"is {name}, which is not read here. {remedy}")
    return NotAPicture("is no PNG, JPEG, WebP or GIF picture, or is cut off in its header")


_USUAL = "Send it as PNG or JPEG"
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")
_OTHER_FORMATS = (
    (
        4,
        _HEIC,
        "a HEIC picture, as iPhones and some other phones take them",
        f"{_USUAL}: on an iPhone Settings, Camera, Formats, Most Compatible; or convert it (heif-convert)",
    ),
    (4, (b"ftypavif", b"ftypavis"), "an AVIF picture", f"{_USUAL}, or as WebP"),
    (0, (b"BM",), "a BMP picture", _USUAL),
    (0, (b"II*\0", b"MM\0*"), "a TIFF picture, or a camera's raw one", _USUAL),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL picture", _USUAL),
    (0, (b"\0\0\0\x0cjP  ",), "a JPEG 2000 picture", _USUAL),
    (0, (b"\0\0\x01\0",), "an icon (ICO)", _USUAL),
    (0, (b"<svg", b"<?xml"), "an SVG or XML file", f"Draw it, and s{_USUAL[1:]}"),
    (0, (b"%PDF",), "a PDF document", "Send its pages as PNG or JPEG"),
    (4, (b"ftyp",), "a video (MP4, MOV or the like)", "Send one frame of it as PNG or JPEG"),
    (0, (b"\x1aE\xdf\xa3",), "a video (WebM)", "Send one frame of it as PNG or JPEG"),
)
"""Where it shows, by what, its name, and what to do instead."""


def _usual_payload(url: str, at: int) -> str | None:
    """The base64 in `url` in the usual alphabet, without white space, padded; None if it is so already."""
    if isinstance(url, LongText):
        return None
    written = url[at:]
    payload = unquote(written) if "%" in written else written
    payload = "".join(payload.split()).replace("-", "+").replace("_", "/").rstrip("=")
    match = _BASE64.match(payload)
    if match is None or match.end() < len(payload) or len(payload) % 4 == 1:
        return None
    padded = payload + "=" * (-len(payload) % 4)
    if written.rstrip("=") == payload and written != padded and not _is_complete(padded):
        return None  # only padding is missing: it was cut off, unless the picture's end is there
    return padded if padded != written else None


def _is_complete(payload: str) -> bool:
    """The last bytes are the end of a picture."""
    end = base64.b64decode(payload[-64:])
    return b"IEND\xaeB`\x82" in end or end.rstrip(b"\0").endswith((b"\xff\xd9", b";"))


def _decoded(payload: str) -> bytes:
    try:
        return base64.b64decode(payload[: len(payload) // 4 * 4], validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotAPicture(f"is not valid base64 ({error})") from None


def _check_end(text: str, size: int) -> None:
    """A cut-off upload shows at the end: base64 comes in fours, and padding only there."""
    if size % 4:
        raise NotAPicture("is not valid base64 (its length is no multiple of 4: it was cut off)")
    _decoded(text.ending(4) if isinstance(text, LongText) else text[-4:])


def _check_jpeg_end(text: str, at: int) -> None:
    """Decoders make up, in grey, what a cut-off JPEG lacks. Some phones append things behind its end."""
    last = max(at, len(text) - _LAST_LOOK)
    end = _decoded(text.ending(_LAST_LOOK) if isinstance(text, LongText) else text[last:])
    if _JPEG_END in end:
        return
    whole = _decoded((text.beginning(text.end) if isinstance(text, LongText) else text)[at:])
    if whole.rfind(_JPEG_END) < (_frame_at(whole) or 0):
        raise NotAPicture(_CUT_OFF)


_LAST_LOOK = 64  # base64 characters, a multiple of 4
_JPEG_END = b"\xff\xd9"
_CUT_OFF = "is cut off: its end is missing"


def _with_frames(picture: Picture, text: str, at: int) -> Picture:
    """A GIF's frames may be many, and larger than the screen that its header speaks of."""
    whole = text.beginning(text.end) if isinstance(text, LongText) else text
    width_px, height_px, frames = _gif_frames(_decoded(whole[at:]))
    return Picture(
        format="gif",
        width_px=max(picture.width_px, width_px),
        height_px=max(picture.height_px, height_px),
        frames=max(1, frames),
    )


def _png(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _gif(data: bytes) -> tuple[int, int] | None:
    if len(data) < 10 or data[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def _gif_frames(data: bytes) -> tuple[int, int, int]:
    """How far its frames reach, in pixels, and how many they are. Source: GIF89a, section 17 on."""
    if len(data) < 13:
        raise NotAPicture(_CUT_OFF)
    at = 13 + _colours(data[10])
    right = bottom = frames = 0
    blocks = 0
    while at + 10 <= len(data):
        if data[at] == 0x2C:
            left, top, width, height = struct.unpack_from("<4H", data, at + 1)
            right, bottom, frames = max(right, left + width), max(bottom, top + height), frames + 1
            at += 11 + _colours(data[at + 9])
        elif data[at] == 0x21:
            at += 2
        elif data[at] == 0x3B:
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
            blocks += 1
        if at >= len(data):
            raise NotAPicture(_CUT_OFF)
        at, blocks = at + 1, blocks + 1
        if blocks > _MOST_BLOCKS:
            raise NotAPicture(f"is a GIF of more than {_MOST_BLOCKS} blocks")
    return right, bottom, frames


def _colours(flags: int) -> int:
    """Bytes of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


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
    at = _frame_at(data)
    if at is None:
        return None
    return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")


def _frame_at(data: bytes) -> int | None:
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
            return at
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_READERS: dict[bytes, tuple[str, Callable[[bytes], tuple[int, int] | None]]] = {
    b"\x89PNG\r\n\x1a\n": ("png", _png),
    b"\xff\xd8": ("jpeg", _jpeg),
    b"RIFF": ("webp", _webp),
    b"GIF8": ("gif", _gif),
}
