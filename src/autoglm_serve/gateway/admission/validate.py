"""Is this body a request of the OpenAI API? Pure checks whose refusals name the field.

Only what the gateway or every engine relies on is checked. What each field may be is the matter of `fields`.
"""

from typing import NoReturn

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json, kind_of
from autoglm_serve.gateway.admission.endpoints import Endpoint
from autoglm_serve.gateway.wire.splice import Path, with_field


def check_shape(body: Json, endpoint: Endpoint) -> None:
    """What has to be there, and messages that are messages."""
    for name in endpoint.required:
        if body.get(name) is None:
            refuse("missing_field", f"'{name}' is missing.", name)
    if not isinstance(body.get("model"), str | None):
        refuse("wrong_type", f"'model' must be a string, not {kind_of(body['model'])}.", "model")
    if endpoint.path in _MESSAGE_PATHS:
        _check_messages(body["messages"])


def described(body: Json) -> dict[Path, object]:
    """Tools whose description is null, where engines expect a text or none."""
    edits: dict[Path, object] = {}
    tools = body.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        for inside in ("function", None):
            place = tool.get(inside) if inside and isinstance(tool, dict) else tool
            if isinstance(place, dict) and place.get("description", "") is None:
                edits[("tools", index, *((inside,) if inside else ()), "description")] = ""
    return edits


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


_MESSAGE_PATHS = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"})
