"""Requests of Ollama's API as requests of OpenAI's. Pure.

What both have is renamed. What only Ollama has is done in another way, or refused in words: nothing that is
asked for is passed over, but for what concerns the loading of a model, which is the service's business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NoReturn

import orjson

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json, LongText, kind_of
from autoglm_serve.gateway.admission.media import data_url

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
LATEST = ":latest"


class Form(Enum):
    """What an answer looks like."""

    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What is asked of OpenAI's API in place of what was asked of Ollama's."""

    form: Form
    model: str
    """As it was asked for; empty where it was not."""
    path: str = CHAT
    body: Json = field(default_factory=dict)
    stream: bool = False
    only_load: bool = False
    """Nothing is asked: the model is to be loaded."""
    theirs: Mapping[str, str] = field(default_factory=dict)
    """By fields as OpenAI's API names them, as who asked has named them."""

    def written(self) -> bytes:
        """The body as bytes; the long strings of a very large one are not read, but copied."""
        return orjson.dumps(self.body, default=_as_it_stood, option=orjson.OPT_PASSTHROUGH_SUBCLASS)

    def in_their_words(self, refusal: Refusal) -> Refusal:
        """The refusal with the fields that were sent."""
        message = refusal.message
        for ours, theirs in self.theirs.items():
            message = message.replace(f"'{ours}'", f"'{theirs}'")
        return Refusal(
            refusal.status,
            refusal.code,
            message,
            type=refusal.type,
            param=self.theirs.get(refusal.param or "", refusal.param),
            retry_after_s=refusal.retry_after_s,
        )


def question(path: str, body: Json, view: FleetView) -> Translation:
    """For one of `PATHS`. Raises Refusal."""
    return PATHS[path](body, view)


class _Asked:
    """A request of OpenAI's API while it is put together."""

    def __init__(self, body: Json, view: FleetView) -> None:
        self.model = _text(body, "model") or _text(body, "name")
        self.body: Json = {}
        self.theirs: dict[str, str] = {}
        self.stream = body.get("stream") is not False
        served = served_as(self.model, view)
        if served:
            self.body["model"] = served
        _sampling(body, _engine(served, view), self)

    def written_in(self, form: Form, path: str) -> Translation:
        self.body["stream"] = self.stream
        if self.stream:
            self.body["stream_options"] = {"include_usage": True}
        return Translation(
            form=form, model=self.model, path=path, body=self.body, stream=self.stream, theirs=self.theirs
        )


def served_as(name: str, view: FleetView) -> str:
    """The served name that is meant: Ollama's clients put a tag behind it."""
    return name.removesuffix(LATEST) if view.model(name) is None else name


def _engine(name: str, view: FleetView) -> str:
    model = view.model(name) if name else next(iter(view.models), None)
    replicas = view.replicas_of(model) if model is not None else ()
    return replicas[0].engine if replicas else ""


def _chat(body: Json, view: FleetView) -> Translation:
    asked = _Asked(body, view)
    messages = body.get("messages")
    if not messages and isinstance(messages, list | None):
        return _loads(Form.CHAT, body, asked)
    if not isinstance(messages, list):
        _refuse("wrong_type", f"'messages' must be an array, not {kind_of(messages)}.", "messages")
    calls: list[str] = []
    asked.body["messages"] = [_message(each, at, calls, asked) for at, each in enumerate(messages)]
    if body.get("tools"):
        asked.body["tools"] = body["tools"]
    _rest(body, _CHAT_FIELDS, asked)
    return asked.written_in(Form.CHAT, CHAT)


def _generate(body: Json, view: FleetView) -> Translation:
    asked = _Asked(body, view)
    for name, instead in _NOT_DONE.items():
        if body.get(name):
            _refuse("not_supported", f"'{name}' is not done here. {instead}", name)
    _rest(body, _GENERATE_FIELDS, asked)
    prompt, images = body.get("prompt") or "", body.get("images")
    if not prompt and not images and not body.get("suffix"):
        return _loads(Form.GENERATE, body, asked)
    if body.get("raw") is True or body.get("suffix"):
        if images:
            _refuse(
                "not_supported", "'images' are not taken with 'raw' or 'suffix'. Leave those out.", "images"
            )
        asked.body["prompt"] = prompt
        if body.get("suffix"):
            asked.body["suffix"] = body["suffix"]
        return asked.written_in(Form.GENERATE, COMPLETIONS)
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    at = len(system)
    content = _content(prompt, images, "images", f"messages[{at}]", asked)
    asked.theirs[f"messages[{at}].content"] = "prompt"
    asked.body["messages"] = [*system, {"role": "user", "content": content}]
    return asked.written_in(Form.GENERATE, CHAT)


def _embed(body: Json, view: FleetView) -> Translation:
    return _embedding_of("input", Form.EMBED, body, view)


def _embedding(body: Json, view: FleetView) -> Translation:
    return _embedding_of("prompt", Form.EMBEDDING, body, view)


def _embedding_of(field: str, form: Form, body: Json, view: FleetView) -> Translation:
    asked = _Asked({name: body[name] for name in ("model", "name") if name in body}, view)
    if body.get(field) is None:
        _refuse("missing_field", f"'{field}' is missing.", field)
    asked.body["input"] = body[field]
    asked.theirs["input"] = field
    if body.get("dimensions") is not None:
        asked.body["dimensions"] = body["dimensions"]
    return Translation(form=form, model=asked.model, path=EMBEDDINGS, body=asked.body, theirs=asked.theirs)


PATHS: Mapping[str, Callable[[Json, FleetView], Translation]] = {
    "/api/chat": _chat,
    "/api/generate": _generate,
    "/api/embed": _embed,
    "/api/embeddings": _embedding,
}


def _loads(form: Form, body: Json, asked: _Asked) -> Translation:
    if _is_nothing(body.get("keep_alive")):
        message = (
            "'keep_alive' is to unload the model, and nothing is asked of it. This service keeps its models: "
            "whoever runs it stops it with autoglm stop."
        )
        _refuse("not_supported", message, "keep_alive")
    return Translation(form=form, model=asked.model, body=asked.body, stream=asked.stream, only_load=True)


def _is_nothing(keep_alive: object) -> bool:
    if isinstance(keep_alive, str):
        return keep_alive.rstrip("hmsuµn") in ("0", "0.0")
    return keep_alive == 0 and keep_alive is not False


# --- messages


def _message(message: object, at: int, calls: list[str], asked: _Asked) -> Json:
    """One message; `calls` are the ids of tool calls that have no result yet."""
    where = f"messages[{at}]"
    if not isinstance(message, dict):
        _refuse("wrong_type", f"'{where}' must be an object, not {kind_of(message)}.", where)
    role = message.get("role")
    content = message.get("content")
    made: Json = {
        "role": role,
        "content": _content(
            "" if content is None else content, message.get("images"), f"{where}.images", where, asked
        ),
    }
    if message.get("tool_calls"):
        made["tool_calls"] = [_call(each, f"call_{at}_{n}") for n, each in enumerate(message["tool_calls"])]
        calls += [call["id"] for call in made["tool_calls"]]
        made["content"] = made["content"] or None
    if role == "tool":
        made["tool_call_id"] = message.get("tool_call_id") or (calls.pop(0) if calls else f"call_{at}")
    if message.get("thinking"):
        made["reasoning_content"] = message["thinking"]
    return made


def _call(call: object, id: str) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        _refuse("wrong_type", 'A tool call must be {"function": {"name": …, "arguments": {…}}}.', "messages")
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    made = {"name": function.get("name"), "arguments": text}
    return {"id": call.get("id") or id, "type": "function", "function": made}


def _content(text: object, images: object, theirs: str, where: str, asked: _Asked) -> object:
    """A text, or parts with the pictures in front of it, as phone agents send them."""
    if not images:
        return text
    if not isinstance(images, list):
        _refuse(
            "wrong_type", f"'{theirs}' must be an array of pictures in base64, not {kind_of(images)}.", theirs
        )
    parts: list[Json] = []
    for at, image in enumerate(images):
        if not isinstance(image, str):
            _refuse(
                "wrong_type", f"'{theirs}[{at}]' must be a picture in base64, not {kind_of(image)}.", theirs
            )
        asked.theirs[f"{where}.content[{at}].image_url.url"] = f"{theirs}[{at}]"
        parts.append({"type": "image_url", "image_url": {"url": _url(image)}})
    if text:
        parts.append({"type": "text", "text": text})
    return parts


def _url(image: str) -> object:
    """Bare base64 says by its beginning what it is."""
    if data_url(image) is not None:
        return image
    kind = next((kind for start, kind in _KINDS.items() if image.startswith(start)), "png")
    head = f"data:image/{kind};base64,"
    if isinstance(image, LongText):
        return orjson.Fragment(b'"%b%b"' % (head.encode(), image.body[image.start : image.end]))
    return head + image


_KINDS = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "UklGR": "webp", "R0lGOD": "gif"}


def _as_it_stood(value: object) -> object:
    if isinstance(value, LongText):
        return orjson.Fragment(b'"%b"' % value.body[value.start : value.end])
    raise TypeError


# --- options


def _sampling(body: Json, engine: str, asked: _Asked) -> None:
    options = body.get("options") or {}
    if not isinstance(options, dict):
        _refuse("wrong_type", f"'options' must be an object, not {kind_of(options)}.", "options")
    for name, value in options.items():
        if value is None or name in _OF_LOADING:
            continue
        if name in _OF_LLAMA_CPP and engine not in ("llama.cpp", "external", ""):
            if value != _OF_LLAMA_CPP[name]:
                where = f"options.{name}"
                _refuse("not_supported", f"'{where}' is not done by the model's engine. Leave it out.", where)
            continue
        if name == "num_predict" and isinstance(value, int) and value < 0:
            continue  # as long as it likes
        for ours in _names(name, engine):
            asked.body[ours] = value
            asked.theirs[ours] = f"options.{name}"


def _names(name: str, engine: str) -> tuple[str, ...]:
    """What engines call it; of an address whose engine is not known, all that some do."""
    if name == "repeat_penalty":
        both = {"llama.cpp": ("repeat_penalty",), "external": ("repeat_penalty", "repetition_penalty")}
        return both.get(engine, ("repetition_penalty",))
    return (_RENAMED.get(name, name),)


def _rest(body: Json, known: frozenset[str], asked: _Asked) -> None:
    """How it is to think and what form the answer has; fields of nobody's go on as they are."""
    think, form = body.get("think"), body.get("format")
    if think is not None and think != "":
        asked.body["enable_thinking"] = think is not False
        asked.theirs["enable_thinking"] = "think"
        if think is not False:
            asked.body["return_reasoning"] = True
        if isinstance(think, str):
            asked.body["reasoning_effort"] = think
            asked.theirs["reasoning_effort"] = "think"
    if form == "json":
        asked.body["response_format"] = {"type": "json_object"}
    elif isinstance(form, dict):
        schema = {"name": "format", "schema": form, "strict": True}
        asked.body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form not in (None, ""):
        _refuse("wrong_type", "'format' must be \"json\" or a JSON schema.", "format")
    asked.theirs["response_format"] = "format"
    asked.body |= {name: value for name, value in body.items() if name not in known | asked.body.keys()}


_COMMON = frozenset(
    {
        "model",
        "name",
        "stream",
        "options",
        "keep_alive",
        "think",
        "format",
        "truncate",
        "shift",
        "logprobs_only",
    }
)
_CHAT_FIELDS = _COMMON | {"messages", "tools"}
_GENERATE_FIELDS = _COMMON | {"prompt", "images", "suffix", "raw", "system", "context", "template"}
_NOT_DONE = {
    "context": "Send the conversation so far to /api/chat.",
    "template": "The model's own chat template is used; with raw the prompt goes to it as it is.",
}
_RENAMED = {"num_predict": "max_tokens", "num_keep": "n_keep"}
_OF_LOADING = frozenset(
    {"num_ctx", "num_batch", "num_gpu", "main_gpu", "low_vram", "vocab_only", "use_mmap", "use_mlock"}
    | {"num_thread", "numa", "f16_kv", "logits_all", "embedding_only", "num_gqa", "penalize_newline"}
    | {"rope_frequency_base", "rope_frequency_scale"}
)
"""Decided when the service starts (`autoglm plan`), and passed over in a request."""
_OF_LLAMA_CPP: Mapping[str, Any] = {
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "num_keep": 0,
    "tfs_z": 1.0,
}
"""What only llama.cpp does, and the values that mean nothing."""


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str | None):
        _refuse("wrong_type", f"'{name}' must be a string, not {kind_of(value)}.", name)
    return value or ""


def _refuse(code: str, message: str, param: str) -> NoReturn:
    raise Refusal(400, code, message, param=param)
