"""Which media a request may carry, and what they come to. Pure.

A value is judged by what it is, wherever it stands and whatever its part calls itself: an address is an
address under any key, and base64 that begins as a picture is a picture. So nothing that an engine would fetch
or decode gets past by another name.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NoReturn

from autoglm_serve.core.model import Feature
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json, LongText
from autoglm_serve.gateway.admission.media import (
    DataUrl,
    NotAPicture,
    Picture,
    UnreadFormat,
    data_url,
    is_picture,
    picture_in,
    picture_in_base64,
)
from autoglm_serve.gateway.admission.parts import TEXT_KEYS, MessagePart, parts
from autoglm_serve.gateway.wire.addresses import LONGEST
from autoglm_serve.gateway.wire.splice import Path

MAX_PICTURE_PIXELS = 50_000_000  # decoded it takes 3 bytes a pixel and more in the engine
MAX_PICTURES = 64
MAX_FRAMES = 64
_JPEG_FRAMES = "video/jpeg"
MAX_VIDEOS = 1
"""Of one request: an engine decodes some 30 frames of each."""

AUDIO_TYPES = frozenset({"input_audio", "audio_url"})
_PICTURE_KEYS = frozenset({"image_url", "input_image", "image"})
_URL_KEYS = frozenset({"image_url", "video_url", "audio_url"})
_ADDRESS_KEYS = _URL_KEYS | frozenset(
    {"image", "video", "url", "uri", "file_url", "file_data", "input_image", "input_video"}
)
_CHAT, _RESPONSES = "/v1/chat/completions", "/v1/responses"
_EMBEDDINGS = frozenset({"image_embeds", "audio_embeds", "prompt_embeds", "precomputed_embeddings"})
_TELLING = 64  # base64 characters that tell a picture
_ADDRESS = re.compile(r"\s*(?:data:|file:|[a-z][a-z0-9+.-]{0,20}://)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPolicy:
    """Which media a client may name instead of sending them, and how many pixels a request may have."""

    hosts: tuple[str, ...] = ()
    """From which media are fetched here; see `addresses.is_allowed`. An engine is never left to fetch."""
    max_pixels: int = 128_000_000
    """Of all pictures of a request together, each frame counted."""


@dataclass(slots=True, kw_only=True)
class Media:
    """The media of a request."""

    pictures: list[Picture] = field(default_factory=list)
    """Those that came with the request."""
    places: list[str] = field(default_factory=list)
    """Where they stand, as an error names it."""
    remote: dict[Path, str] = field(default_factory=dict)
    """Addresses that have to be fetched."""
    videos: int = 0
    bytes: int = 0
    """How much of the body they take."""
    audio: int = 0
    """Audio parts."""
    edits: dict[Path, object] = field(default_factory=dict)
    """Data URLs as engines expect them, where they are written in another way."""
    unread: list[Path] = field(default_factory=list)
    """Where pictures stand, once edited, that the engine would not read, or would see turned."""


_NO_MEDIA = Media()
"""Of a request that is nothing but text. Nobody changes it."""


def read_media(
    body: Json,
    policy: MediaPolicy,
    undone: Container[Feature] = frozenset(),
    path: str = _CHAT,
) -> Media:
    """Every picture, sound and address in the content; a Refusal for those that cannot be taken. `undone` is
    what the engine does not do."""
    found = parts(body)
    first = next(found, None)
    if first is None:
        return _NO_MEDIA
    media = Media()
    for part in chain((first,), found):
        kind = part.value.get("type")
        for key in _EMBEDDINGS & part.value.keys():
            _refuse(
                "media_not_allowed",
                f"'{part}.{key}' holds embeddings, which are loaded into an engine as they are. Send the "
                "picture, the sound or the text itself.",
                f"{part}.{key}",
            )
        if isinstance(kind, str):
            media.audio += is_audio(part)
            if kind in _URL_KEYS and not isinstance(part.value.get(kind), str | dict):
                _wrong_shape(part, kind)
        if part.key in _URL_KEYS and not isinstance(part.value.get("url"), str):
            where = f"{part}.url"
            _refuse("wrong_type", f"'{where}' must be a string.", where)
        for key, text in _found(part):
            picture = _judge(part, key, text, policy, media)
            place = _in_the_form_of(path, part, key, text, media)
            if picture is not None and _is_unread(picture, undone):
                media.unread.append(place)
    return media


def _is_unread(picture: Picture, undone: Container[Feature]) -> bool:
    return (picture.format == "webp" and Feature.WEBP in undone) or (
        picture.turned and Feature.EXIF_TURNS in undone
    )


def _in_the_form_of(path: str, part: MessagePart, key: str, text: str, media: Media) -> Path:
    """In a chat a picture's address stands in an object, in /v1/responses it does not; where it then is."""
    where = (*part.path, key)
    if path == _CHAT and key == "image_url" and part.value.get("type") == "image_url":
        if isinstance(text, LongText):
            _wrong_shape(part, key)
        media.edits[where] = {"url": media.edits.get(where, text)}
        return (*where, "url")
    if path == _RESPONSES and part.key == "image_url" and key == "url" and not isinstance(text, LongText):
        media.edits[part.path] = media.edits.pop(where, text)
        return part.path
    return where


def is_audio(part: MessagePart) -> bool:
    kind = part.value.get("type")
    return isinstance(kind, str) and kind in AUDIO_TYPES


def _found(part: MessagePart) -> Iterator[tuple[str, str]]:
    """The strings of an object that are media or addresses of them."""
    for key, value in part.value.items():
        if isinstance(value, str):
            if key in _ADDRESS_KEYS or (key not in TEXT_KEYS and (key == "data" or _ADDRESS.match(value))):
                yield key, value
        elif key in _ADDRESS_KEYS and value is not None and not isinstance(value, dict | list):
            _wrong_shape(part, key)


def _wrong_shape(part: MessagePart, key: str) -> None:
    where = f"{part}.{key}"
    _refuse("wrong_type", f"'{where}' must be an object with a 'url'.", where)


def _judge(part: MessagePart, key: str, text: str, policy: MediaPolicy, media: Media) -> Picture | None:
    """What it is, counted; the picture, where it is one."""
    head = data_url(text)
    where = f"{part}.{key}"
    if head is not None:
        media.bytes += _bytes_of(text)
        if head.media_type == _JPEG_FRAMES:
            _frames(where, text, head, policy, media)
            return None
        payload = text[head.payload_at : head.payload_at + _TELLING]
        if head.media_type.startswith("image/") or _means_picture(part, key) or is_picture(payload):
            return _picture(part, key, text, policy, media)
        if head.media_type.startswith("video/"):
            _video(where, media)
    elif key == "data" and not _ADDRESS.match(text):
        media.bytes += _bytes_of(text)
        return _bare(part, where, text, policy, media)
    else:
        _check_remote(where, text, policy)
        media.remote[(*part.path, key)] = text.strip()
    return None


def _bytes_of(text: str) -> int:
    return text.end - text.start if isinstance(text, LongText) else len(text)


def _means_picture(part: MessagePart, key: str) -> bool:
    return key in _PICTURE_KEYS or part.key in _PICTURE_KEYS


def _picture(part: MessagePart, key: str, url: str, policy: MediaPolicy, media: Media) -> Picture:
    where = f"{part}.{key}"
    try:
        picture, usual = picture_in(url)
    except NotAPicture as error:
        _refuse_picture(where, error)
    if usual is not None:
        media.edits[(*part.path, key)] = usual
    _count(where, picture, policy, media)
    return picture


def _refuse_picture(where: str, error: NotAPicture) -> NoReturn:
    code = "unsupported_image" if isinstance(error, UnreadFormat) else "invalid_image"
    _refuse(code, f"'{where}' {error}.", where)


def _bare(part: MessagePart, where: str, data: str, policy: MediaPolicy, media: Media) -> Picture | None:
    """Base64 without a head, which says beside it what it is, or does not."""
    said = part.value.get("media_type")
    if part.value.get("type") == "text":
        return None
    if not (isinstance(said, str) and said.startswith("image/")) and not is_picture(data):
        return None
    try:
        picture = picture_in_base64(data)
    except NotAPicture as error:
        _refuse_picture(where, error)
    _count(where, picture, policy, media)
    return picture


def _count(where: str, picture: Picture, policy: MediaPolicy, media: Media) -> None:
    """Take one more picture, if it is not one too many."""
    width, height = picture.width_px, picture.height_px
    if width * height > MAX_PICTURE_PIXELS:
        _refuse(
            "image_too_large",
            f"'{where}' is {width}x{height} pixels; at most {MAX_PICTURE_PIXELS // 1_000_000} megapixels "
            "are taken. Scale it down: models see far fewer.",
            where,
        )
    media.pictures.append(picture)
    media.places.append(where)
    if len(media.pictures) > MAX_PICTURES:
        _refuse(
            "too_many_images", f"'{where}' is one picture more than the {MAX_PICTURES} of a request.", where
        )
    if sum(each.pixels for each in media.pictures) > policy.max_pixels:
        _refuse_pixels(where, policy)


def _refuse_pixels(where: str, policy: MediaPolicy) -> NoReturn:
    _refuse(
        "too_many_pixels",
        f"With '{where}' the pictures of this request have more than {policy.max_pixels // 1_000_000} "
        "megapixels together, frames of animations counted (--max-request-megapixels). Send fewer or "
        "smaller ones.",
        where,
    )


def _video(where: str, media: Media) -> None:
    media.videos += 1
    if media.videos > MAX_VIDEOS:
        _refuse("too_many_videos", f"'{where}' is one more than the {MAX_VIDEOS} video of a request.", where)


def _frames(where: str, text: str, head: DataUrl, policy: MediaPolicy, media: Media) -> None:
    """JPEGs behind each other, as vLLM takes a video: each counts as a picture of the first one's size."""
    _video(where, media)
    commas = text.body.count(b",", text.start, text.end) if isinstance(text, LongText) else text.count(",")
    if commas > MAX_FRAMES:  # one of them ends the head
        _refuse("too_many_frames", f"'{where}' has {commas:,} frames; at most {MAX_FRAMES} are taken.", where)
    try:
        first = picture_in_base64(text[head.payload_at :].partition(",")[0])
    except NotAPicture as error:
        _refuse("invalid_image", f"The first frame of '{where}' {error}.", where)
    if first.pixels * commas > policy.max_pixels:
        _refuse_pixels(where, policy)


def _check_remote(where: str, url: str, policy: MediaPolicy) -> None:
    scheme = url.strip().partition(":")[0].lower()
    if scheme not in ("http", "https"):
        _refuse(
            "media_not_allowed",
            f"'{where}' names {scheme[:20]!r} media; only data URLs are read here. "
            "Send the picture itself: data:image/png;base64,…",
            where,
        )
    if not policy.hosts:
        _refuse(
            "media_not_allowed",
            f"'{where}' is a remote address, and this service fetches none. Send the picture itself as "
            "data:image/png;base64,…, or have the service started with --allow-media-host.",
            where,
        )
    if isinstance(url, LongText) or len(url) > LONGEST:
        _refuse("media_not_allowed", f"'{where}' is too long for an address.", where)


def _refuse(code: str, message: str, param: str) -> NoReturn:
    raise Refusal(400, code, message, param=param)
