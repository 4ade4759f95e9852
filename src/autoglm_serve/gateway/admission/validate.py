"""Is this body a request of the OpenAI API? Pure checks whose refusals name the field.

Only what the gateway or every engine relies on is checked; a parameter that one engine knows and another
does not is the engine's business.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.endpoints import Endpoint
from autoglm_serve.gateway.admission.media import NotAPicture, size_of_data_url
from autoglm_serve.gateway.wire.splice import with_field

Json = dict[str, Any]
_Check = Callable[[object], bool]

MAX_PICTURE_PIXELS = 50_000_000  # decoded it takes 3 bytes a pixel and more in the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPolicy:
    """Which media a client may name instead of sending them."""

    allow_remote: bool = False
    """Let the engine fetch http and https addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """The media of a request."""

    pictures: tuple[tuple[int, int], ...] = ()
    """Width and height in pixels of each picture that came with the request."""
    remote: int = 0
    """Pictures that the engine will fetch."""
    bytes: int = 0
    """How much of the body they take."""
    audio: int = 0
    """Audio parts."""


def parse_object(body: bytes) -> Json:
    """The body as a JSON object, or a refusal that says where it breaks."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refuse("invalid_json", f"The body is not valid JSON: {error}.")
    if not isinstance(value, dict):
        refuse("invalid_json", f"The body must be a JSON object, not {_kind(value)}.")
    return value


def check_fields(body: Json, endpoint: Endpoint) -> None:
    for name in endpoint.required:
        if body.get(name) is None:
            refuse("missing_field", f"'{name}' is missing.", name)
    for name, value in body.items():
        if value is not None and name in _FIELDS:
            check, expected = _FIELDS[name]
            if not check(value):
                refuse("wrong_type", f"'{name}' must be {expected}, not {_kind(value)}.", name)
    if endpoint.path in _MESSAGE_PATHS:
        _check_messages(body["messages"])


def read_media(body: Json, policy: MediaPolicy) -> Media:
    """Every picture and audio part of the request, measured; a refusal for those that cannot be taken."""
    pictures: list[tuple[int, int]] = []
    size = remote = audio = 0
    for where, part in parts(body):
        kind = part.get("type")
        if kind in AUDIO_TYPES:
            audio += 1
            size += _bytes_of_audio(part)
        if kind not in _MEDIA_TYPES:
            continue
        for name, url in _references(where, part):
            if url.startswith("data:image/") or (url.startswith("data:") and kind in _PICTURE_TYPES):
                pictures.append(_measured(name, url))
                size += len(url)
            elif url.startswith("data:"):
                size += len(url)
            else:
                _check_remote(name, url, policy)
                remote += 1
    return Media(pictures=tuple(pictures), remote=remote, bytes=size, audio=audio)


def refuse(code: str, message: str, param: str | None = None) -> NoReturn:
    raise Refusal(400, code, message, param=param)


def rewritten(body: bytes, name: str, value: object) -> bytes:
    """`body` with another value of a field; refused where it nests too deep: less is written than is read."""
    try:
        return with_field(body, name, value)
    except TypeError:
        refuse("invalid_json", f"'{name}' nests objects and arrays too deep to be passed on.", name)


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list):
        refuse("wrong_type", f"'messages' must be an array, not {_kind(messages)}.", "messages")
    if not messages:
        refuse("missing_field", "'messages' is empty: at least one message is needed.", "messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            refuse("wrong_type", f"'{where}' must be an object, not {_kind(message)}.", where)
        role = message.get("role")
        if not isinstance(role, str) or not role:
            refuse("missing_field", f"'{where}.role' must be a role such as \"user\".", f"{where}.role")
        _check_content(message.get("content"), f"{where}.content")


def _check_content(content: object, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse("wrong_type", f"'{where}' must be a string or an array of parts, not {_kind(content)}.", where)
    for index, part in enumerate(content):
        name = f"{where}[{index}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            refuse("wrong_type", f"'{name}' must be a part with a 'type', such as \"text\".", name)
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            refuse("wrong_type", f"'{name}.text' must be a string.", f"{name}.text")


AUDIO_TYPES = frozenset({"input_audio", "audio_url"})
_PICTURE_TYPES = frozenset({"image_url", "input_image", "image"})
_MEDIA_TYPES = _PICTURE_TYPES | frozenset(
    {"video_url", "input_video", "video", "audio_url", "input_file"}
    | {"file", "document", "image_pil", "image_embeds"}
)


def parts(body: Json) -> Iterator[tuple[str, Json]]:
    """Each typed part below `messages` and `input`, with its path; tool results nest parts in parts."""
    for field in ("messages", "input"):
        items = body.get(field)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            yield from _walk(f"{field}[{index}]", item)


def _walk(where: str, item: object) -> Iterator[tuple[str, Json]]:
    if not isinstance(item, dict):
        return
    if isinstance(item.get("type"), str):
        yield where, item
    for name in ("content", "output"):
        inner = item.get(name)
        for index, part in enumerate(inner if isinstance(inner, list) else ()):
            yield from _walk(f"{where}.{name}[{index}]", part)


def _references(where: str, part: Json) -> Iterator[tuple[str, str]]:
    """The addresses in one media part, whichever of the dialects it is written in."""
    for name in ("image_url", "video_url", "audio_url", "file_url", "url", "image", "video"):
        value = part.get(name)
        if isinstance(value, dict):
            if not isinstance(value.get("url"), str):
                refuse("wrong_type", f"'{where}.{name}.url' must be a string.", f"{where}.{name}.url")
            yield f"{where}.{name}.url", value["url"]
        elif isinstance(value, str):
            yield f"{where}.{name}", value
        elif value is not None or (name == part.get("type") and name.endswith("_url")):
            refuse("wrong_type", f"'{where}.{name}' must be an object with a 'url'.", f"{where}.{name}")
    source = part.get("source")  # the Messages API
    if isinstance(source, dict):
        if isinstance(source.get("url"), str):
            yield f"{where}.source.url", source["url"]
        elif isinstance(source.get("data"), str) and source.get("type") == "base64":
            yield f"{where}.source.data", f"data:{source.get('media_type', 'image/')};base64,{source['data']}"


def _bytes_of_audio(part: Json) -> int:
    """Of `input_audio`; what an address holds is counted with the addresses."""
    sound = part.get("input_audio")
    data = sound.get("data") if isinstance(sound, dict) else None
    return len(data) if isinstance(data, str) else 0


def _measured(where: str, url: str) -> tuple[int, int]:
    try:
        width, height = size_of_data_url(url)
    except NotAPicture as error:
        refuse("invalid_image", f"'{where}' {error}.", where)
    if width * height > MAX_PICTURE_PIXELS:
        refuse(
            "image_too_large",
            f"'{where}' is {width}x{height} pixels; at most {MAX_PICTURE_PIXELS // 1_000_000} megapixels "
            "are taken. Scale it down: models see far fewer.",
            where,
        )
    return width, height


def _check_remote(where: str, url: str, policy: MediaPolicy) -> None:
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        refuse(
            "media_not_allowed",
            f"'{where}' names {scheme[:20]!r} media; only data URLs are read here. "
            "Send the picture itself: data:image/png;base64,…",
            where,
        )
    if not policy.allow_remote:
        refuse(
            "media_not_allowed",
            f"'{where}' is a remote address, and this service fetches none. Send the picture itself as "
            "data:image/png;base64,…, or have the service started with --allow-image-url.",
            where,
        )


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _is_int(value: object) -> bool:
    return type(value) is int


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_text_or_list(value: object) -> bool:
    return isinstance(value, str | list)


_NUMBER = (_is_number, "a number")
_COUNT = (_is_count, "an integer of at least 0")
_BOOL = (_is_bool, "true or false")
_OBJECT = (_is_object, "an object")
_TEXT_OR_LIST = (_is_text_or_list, "a string or an array")

_FIELDS: dict[str, tuple[_Check, str]] = {
    "model": (lambda value: isinstance(value, str), "a string"),
    "stream": _BOOL,
    "stream_options": _OBJECT,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "n": _COUNT,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "seed": (_is_int, "an integer"),
    "stop": _TEXT_OR_LIST,
    "tools": (lambda value: isinstance(value, list), "an array"),
    "prompt": _TEXT_OR_LIST,
    "enable_thinking": _BOOL,
    "return_reasoning": _BOOL,
    "chat_template_kwargs": _OBJECT,
}
_MESSAGE_PATHS = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"})
