"""What a request asks for and the model's engine would pass over with a 200. Pure.

An engine that ignores a field answers something else than was asked, and nobody notices. What an engine does
not do is said in its own file (`Engine.undone`); here it is found in a request and refused in words.
"""

from collections.abc import Callable
from typing import Any

from autoglm_serve.core.fleet import ModelView
from autoglm_serve.core.model import Feature
from autoglm_serve.core.refusal import Refusal

Json = dict[str, Any]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "observation", "ipython"})
"""OpenAI's, and those of the chat templates of GLM and Llama."""
_CHAT, _COMPLETIONS, _RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def refuse_undone(body: Json, path: str, model: ModelView) -> None:
    """Raises Refusal, which names the field and what to do instead."""
    for feature, (paths, find, instead) in _FEATURES.items():
        if feature in model.undone and path in paths:
            param = find(body)
            if param is not None:
                message = f"'{param}' asks for what the engine of '{model.name}' does not do. {instead}"
                raise Refusal(400, "not_supported", message, param=param)


def _unknown_role(body: Json) -> str | None:
    for field in ("messages", "input"):
        items = body.get(field)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            role = item.get("role") if isinstance(item, dict) else None
            if isinstance(role, str) and role not in _ROLES:
                return f"{field}[{index}].role"
    return None


def _built_in_tool(body: Json) -> str | None:
    if body.get("web_search_options") is not None:
        return "web_search_options"
    tools = body.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind not in ("function", "custom"):
            return f"tools[{index}].type"
    return None


def _spoken_answer(body: Json) -> str | None:
    modalities = body.get("modalities")
    return "modalities" if isinstance(modalities, list) and "audio" in modalities else None


def _json_response(body: Json) -> str | None:
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    kind = form.get("type") if isinstance(form, dict) else None
    return "text.format" if kind not in (None, "text") else None


def _asks(name: str, nothing: tuple[object, ...]) -> Callable[[Json], str | None]:
    """The field is there and asks for something."""
    return lambda body: name if body.get(name) not in nothing else None


_Found = tuple[frozenset[str], Callable[[Json], str | None], str]
_FEATURES: dict[Feature, _Found] = {
    Feature.OTHER_ROLES: (
        frozenset({_CHAT, _RESPONSES}),
        _unknown_role,
        f"Roles are {', '.join(sorted(_ROLES))}.",
    ),
    Feature.BUILT_IN_TOOLS: (
        frozenset({_CHAT, _RESPONSES}),
        _built_in_tool,
        "Offer a tool of type function, and do it in your program.",
    ),
    Feature.SPOKEN_ANSWER: (
        frozenset({_CHAT}),
        _spoken_answer,
        "Ask for text, and speak it elsewhere.",
    ),
    Feature.JSON_RESPONSE: (
        frozenset({_RESPONSES}),
        _json_response,
        "Ask /v1/chat/completions with response_format, which it does.",
    ),
    Feature.ECHO: (
        frozenset({_COMPLETIONS}),
        _asks("echo", (None, False)),
        "Put the prompt in front of the answer yourself.",
    ),
    Feature.PLAIN_LOGPROBS: (
        frozenset({_COMPLETIONS}),
        _asks("logprobs", (None, False)),
        "Ask /v1/chat/completions with logprobs, which it does.",
    ),
    Feature.BEST_OF: (
        frozenset({_COMPLETIONS}),
        _asks("best_of", (None, 1)),
        "Ask for n answers, and choose.",
    ),
    Feature.SUFFIX: (
        frozenset({_COMPLETIONS}),
        _asks("suffix", (None, "")),
        "Leave it out.",
    ),
}
