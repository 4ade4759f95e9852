"""What an engine says against a request, in our words: code, field, and what to do about it. Pure.

Engines say the same in many ways, and advise flags of their own. Known complaints become errors of this API;
of any other the reason is quoted, without the values that it may repeat from the request. What an engine says
of itself (5xx) is for its log: the client learns that it failed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from autoglm_serve.core.refusal import Refusal, RefusalType

Json = dict[str, Any]

_MOST_QUOTED = 300
_MOST_READ = 4096
"""Characters of a complaint that are looked at: some engines repeat in it all that they were asked."""
_MESSAGE = re.compile(rb'"(?:message|msg)"\s*:\s*"((?:[^"\\]|\\.){1,4000}+)')
_SPOKEN = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})
"""Answered by a program of ours, whose words are ours."""
_PROMPT = {
    "/v1/completions": "prompt",
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/v1/messages": "messages",
}
_NOT_THERE = frozenset({404, 405, 501})
_BEYOND_CHAT = frozenset(
    {"/v1/embeddings", "/v1/rerank", "/v1/score", "/v1/classify", "/v1/moderations", "/v1/images/generations"}
    | {"/v1/audio/speech", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", *_SPOKEN}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A refusal as it came."""

    status: int
    path: str
    text: str
    error: Json
    picture: str
    """Where the request's only picture stands; empty where there is none, or more than one."""

    @property
    def prompt(self) -> str:
        return _PROMPT.get(self.path, "messages")


def complaint(
    status: int, body: bytes, path: str, *, retry_after_s: int | None = None, picture: str = ""
) -> Refusal:
    """The refusal that tells the client of an engine's. `picture` is where the request's only one stands."""
    said = _read(status, body, path, picture)
    if path in _SPOKEN and isinstance(said.error.get("code"), str):
        return _ours(said, retry_after_s)
    if status == 429:
        message = "No replica has room for this request now. Send it again after the time in Retry-After."
        return Refusal(
            429, "engine_full", message, type=RefusalType.OVERLOADED, retry_after_s=retry_after_s or 1
        )
    if status in _NOT_THERE and path in _BEYOND_CHAT:
        return _cannot(said)
    for pattern, refusal in _KNOWN:
        if pattern.search(said.text):
            return refusal(said)
    if status >= 500:
        return _failed(status, retry_after_s)
    return _refused(said)


def no_answer(why: str) -> Refusal:
    """For a reply that is none."""
    message = f"The replica's reply is no answer: {why}. The service's log has more; try again."
    return Refusal(502, "upstream_failed", message, type=RefusalType.SERVER)


def no_call() -> Refusal:
    """For an answer without the tool call that was asked for."""
    message = (
        "The model answered without the tool call that tool_choice asks for: its template, or the engine "
        "as it was started, knows none. Use tool_choice auto, or a model and flags that are made for tools."
    )
    return Refusal(400, "tool_choice_not_done", message, param="tool_choice")


def _read(status: int, body: bytes, path: str, picture: str) -> _Said:
    """FastAPI answers {"detail": …}, vLLM before 0.10 {"object": "error", …}, others plain text."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError:
        raw = _broken_off(body)
    error = raw.get("error", raw) if isinstance(raw, dict) else {}
    return _Said(
        status=status,
        path=path,
        text=_words(raw)[:_MOST_READ].strip(),
        error=error if isinstance(error, dict) else {},
        picture=picture,
    )


def _broken_off(body: bytes) -> str:
    """The words of what is no JSON, or of its beginning: the rest of a long complaint is not kept."""
    if body.lstrip().startswith(b"<"):
        return ""
    message = _MESSAGE.search(body)
    return (message.group(1) if message else body[:_MOST_READ]).decode("utf-8", "replace")


def _words(raw: object) -> str:
    match raw:
        case str():
            return raw
        case {"error": {"message": str(message)}} | {"message": str(message)} | {"error": str(message)}:
            return message
        case {"detail": list(details)}:
            return "; ".join(map(_detail, details))
        case {"detail": str(message)}:
            return message
        case _:
            return ""


def _detail(detail: object) -> str:
    """One finding of a validator: where and what, not the value that it was found in."""
    if not isinstance(detail, dict):
        return ""
    where = ".".join(str(part) for part in detail.get("loc") or () if part != "body")
    return f"{where}: {detail.get('msg', 'is not valid')}"


def _ours(said: _Said, retry_after_s: int | None) -> Refusal:
    error = said.error
    return Refusal(
        said.status,
        error["code"],
        said.text,
        type=_type(said.status),
        param=error["param"] if isinstance(error.get("param"), str) else None,
        retry_after_s=retry_after_s,
    )


def _cannot(said: _Said) -> Refusal:
    message = (
        f"The model's engine does not serve {said.path}. Ask a model that can (GET /v1/models lists what "
        "each can do), or start a service for one: autoglm serve --model NAME."
    )
    return Refusal(400, "model_cannot", message, param="model")


def _too_long(said: _Said) -> Refusal:
    limit, prompt, answer = (_number(said, pattern, name) for pattern, name in _COUNTS)
    takes = f" of {limit} tokens" if limit else ""
    has = f": the prompt has {prompt}" if prompt else ""
    wants = f", and {answer} are asked for as the answer" if prompt and answer else ""
    message = (
        f"The request is longer than the model's context{takes}{has}{wants}. Shorten the conversation, send "
        "smaller pictures or ask for a shorter answer (max_tokens); or start the service with a larger "
        "--max-model-len."
    )
    return Refusal(400, "context_length_exceeded", message, param=said.prompt)


_COUNTS = (
    (re.compile(r"(?:context|model) (?:length|size|window)(?: is| of)?(?: only)? \(?(\d+)"), "n_ctx"),
    (
        re.compile(
            r"(\d+)(?: tokens)? (?:in the messages|in the prompt|input tokens|tokens from the input)"
            r"|(?:prompt|input|request) \((?:length )?(\d+)"
        ),
        "n_prompt_tokens",
    ),
    (
        re.compile(r"(\d+)(?: tokens)? (?:in the completion|output tokens|tokens for the completion)"),
        "max_tokens",
    ),
)


def _number(said: _Said, pattern: re.Pattern[str], name: str) -> int | None:
    """A count, as a field or in the words."""
    value = said.error.get(name)
    if isinstance(value, int):
        return value
    found = pattern.search(said.text)
    return int(next(group for group in found.groups() if group)) if found else None


def _blind(said: _Said) -> Refusal:
    message = (
        "The model reads text only, or the part that sees is missing. Send no pictures, or start the service "
        "with a vision model (for a GGUF file: with its --mmproj)."
    )
    return Refusal(400, "no_vision", message, param=said.prompt)


def _too_many(said: _Said) -> Refusal:
    found = re.search(r"[Aa]t most (\d+)", said.text)
    most = found[1] if found else "fewer"
    message = (
        f"At most {most} such parts are taken in one request. Send fewer: an agent's step needs the newest "
        "picture only; or start the service with another limit behind --, in the engine's own words."
    )
    return Refusal(400, "too_many_media", message, param=said.prompt)


def _no_tools(said: _Said) -> Refusal:
    message = (
        "The engine was not started for tool calls. Start the service with its own flags behind --; for "
        "vLLM: autoglm serve … -- --enable-auto-tool-choice --tool-call-parser NAME."
    )
    return Refusal(400, "tools_not_enabled", message, param="tools")


def _wrong_roles(said: _Said) -> Refusal:
    message = (
        "The model's chat template does not take these roles in this order: "
        f"{_quoted(said)} Send system first, then user and assistant in turn."
    )
    return Refusal(400, "wrong_roles", message, param="messages")


def _bad_picture(said: _Said) -> Refusal:
    which = f"'{said.picture}'" if said.picture else "One of the pictures"
    message = f"{which} cannot be decoded: it is damaged or cut off. Send the whole file as PNG or JPEG."
    return Refusal(400, "invalid_image", message, param=said.picture or said.prompt)


def _no_model(said: _Said) -> Refusal:
    message = (
        "The server behind this service does not serve the model. Name one that it does: "
        "--served-model-name, or another --upstream."
    )
    return Refusal(404, "model_not_found", message, type=RefusalType.NOT_FOUND, param="model")


def _no_key(said: _Said) -> Refusal:
    message = (
        "The server behind this service (--upstream) wants another key than that of --upstream-key-file."
    )
    return Refusal(said.status, "upstream_key", message, type=RefusalType.PERMISSION)


_KNOWN: tuple[tuple[re.Pattern[str], Callable[[_Said], Refusal]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), refusal)
    for pattern, refusal in (
        (
            r"context (?:length|size|window)|maximum model length|max_model_len|longer than the model's",
            _too_long,
        ),
        (
            r"not a multimodal model|image input is not supported|mmproj|does not support image|no vision",
            _blind,
        ),
        (r"at most \d+ (?:image|video|audio)", _too_many),
        (r"enable-auto-tool-choice|tool-call-parser|--jinja", _no_tools),
        (r"roles? must alternate|only user and assistant roles|system role not supported", _wrong_roles),
        (
            r"cannot identify image|failed to (?:load|decode)[^.]*(?:image|bitmap)|image file is truncated",
            _bad_picture,
        ),
        (r"model .{0,200} (?:does not exist|not found)", _no_model),
        (
            r"(?:does not|doesn't) support (?:embeddings|rerank|score|classif|transcription|completions)",
            _cannot,
        ),
        (r"unauthorized|invalid api key|incorrect api key", _no_key),
    )
)


def _failed(status: int, retry_after_s: int | None) -> Refusal:
    message = (
        "The replicas failed at this request. Send it again; if it fails each time, the replica's log says "
        "why (autoglm status names it)."
    )
    # 52x and the like are a proxy's, and mean that there was no engine to answer.
    told, code = (status, "engine_failed") if status <= 504 else (502, "upstream_failed")
    return Refusal(told, code, message, type=RefusalType.SERVER, retry_after_s=retry_after_s)


def _refused(said: _Said) -> Refusal:
    code, param = said.error.get("code"), said.error.get("param")
    return Refusal(
        said.status,
        code if isinstance(code, str) and not code.isdigit() else "engine_refused",
        f"The engine does not take this request: {_quoted(said)} Change it; docs/api.md says what is taken.",
        type=_type(said.status),
        param=param if isinstance(param, str) else _field(said.text),
    )


def _quoted(said: _Said) -> str:
    """The reason in one line, as far as it is none of the request's values, and without advice on flags."""
    text = re.sub(r"""["']input["']: .*""", "", said.text, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", re.sub(r"(?i)traceback.*", "", text, flags=re.DOTALL)).strip(" ,;{[")
    sentences = [part for part in re.split(r"(?<=[.;!]) ", text) if "--" not in part]
    text = " ".join(sentences)[:_MOST_QUOTED].rstrip(".;") or f"it answered {said.status}"
    return f"{text}."


def _field(text: str) -> str | None:
    """The field that a validator names: ('body', 'messages', 0, 'role')."""
    found = re.search(r"'loc': \('body', ([^)]*)\)", text)
    if found is None:
        return None
    return ".".join(part.strip(" '") for part in found[1].split(",") if part.strip(" '"))


def _type(status: int) -> RefusalType:
    match status:
        case 401 | 403:
            return RefusalType.PERMISSION
        case 404:
            return RefusalType.NOT_FOUND
        case _:
            return RefusalType.INVALID_REQUEST if status < 500 else RefusalType.SERVER
