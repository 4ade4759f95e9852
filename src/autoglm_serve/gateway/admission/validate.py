"""Is this body a request of the OpenAI API? Pure checks whose refusals name the field.

Only what the gateway or every engine relies on is checked; a parameter that one engine knows and another
does not is the engine's business.
"""

from collections.abc import Callable
from typing import NoReturn

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json, kind_of
from autoglm_serve.gateway.admission.endpoints import Endpoint
from autoglm_serve.gateway.wire.splice import with_field

_Check = Callable[[object], bool]


def check_fields(body: Json, endpoint: Endpoint) -> None:
    for name in endpoint.required:
        if body.get(name) is None:
            refuse("missing_field", f"'{name}' is missing.", name)
    for name, value in body.items():
        if value is not None and name in _FIELDS:
            check, expected = _FIELDS[name]
            if not check(value):
                refuse("wrong_type", f"'{name}' must be {expected}, not {kind_of(value)}.", name)
    if endpoint.path in _MESSAGE_PATHS:
        _check_messages(body["messages"])


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
        refuse("wrong_type", f"'messages' must be an array, not {kind_of(messages)}.", "messages")
    if not messages:
        refuse("missing_field", "'messages' is empty: at least one message is needed.", "messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            refuse("wrong_type", f"'{where}' must be an object, not {kind_of(message)}.", where)
        role = message.get("role")
        if not isinstance(role, str) or not role:
            refuse("missing_field", f"'{where}.role' must be a role such as \"user\".", f"{where}.role")
        _check_content(message.get("content"), f"{where}.content")


def _check_content(content: object, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        kind = kind_of(content)
        refuse("wrong_type", f"'{where}' must be a string or an array of parts, not {kind}.", where)
    for index, part in enumerate(content):
        name = f"{where}[{index}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            refuse("wrong_type", f"'{name}' must be a part with a 'type', such as \"text\".", name)
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            refuse("wrong_type", f"'{name}.text' must be a string.", f"{name}.text")


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
