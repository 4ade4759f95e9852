"""What the faulty engine answers where nothing breaks: predictable text in the shapes of the OpenAI API.

The text is "tok0 tok1 tok2 …" unless a request says otherwise, and a continuation joins to the same text.
"""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass(slots=True, kw_only=True)
class Reply:
    """A head, the parts of the body as they are written, and what ends it."""

    head: bytes
    parts: list[bytes]
    tail: bytes = b""
    lead_parts: int = 0
    """Parts before the first piece of text (the role event of a stream)."""
    text_parts: int = 0
    """The pieces of text that follow them."""
    chunked: bool = False

    def framed(self, payload: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(payload), payload) if self.chunked else payload


def json_reply(value: Any, status: int = 200, extra: str = "") -> Reply:
    return raw_reply(json.dumps(value).encode(), status, extra)


def raw_reply(body: bytes, status: int = 200, extra: str = "", kind: str = "application/json") -> Reply:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{extra}content-length: {len(body)}\r\n\r\n"
    middle = len(body) // 2
    return Reply(head=head.encode(), parts=[body[:middle], body[middle:]])


def stream_reply(events: list[bytes], *, lead: int, text: int) -> Reply:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return Reply(head=head, parts=events, tail=b"0\r\n\r\n", lead_parts=lead, text_parts=text, chunked=True)


def error_reply(status: int, retry_after_s: str | None = None) -> Reply:
    extra = f"retry-after: {retry_after_s}\r\n" if retry_after_s else ""
    error = {"message": f"faulty engine says {status}", "type": "fault", "param": None, "code": status}
    return json_reply({"error": error}, status, extra)


def words(text: str) -> list[str]:
    """The text cut before each word, so that joining gives it back."""
    return re.findall(r"\s*\S+|\s+", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model 'writes' to one request."""

    pieces: list[str]
    finish_reason: str
    prompt_tokens: int


def whole_answer(fields: dict[str, Any], chunks: int) -> list[str]:
    if (fields.get("response_format") or {}).get("type") in ("json_schema", "json_object"):
        return [FORMED]
    if "pieces" in fields:
        return [str(piece) for piece in fields["pieces"]]
    if "answer" in fields:
        return words(str(fields["answer"]))
    count = int(fields.get("chunks", chunks))
    return [f"tok{i} " for i in range(count)]


def continued(pieces: list[str], prefix: str) -> list[str]:
    """What is left of an answer after `prefix`; a piece that the prefix cuts is finished first."""
    rest = "".join(pieces).removeprefix(prefix)
    if prefix and len(rest) == len("".join(pieces)):
        return ["<diverged>"]
    left: list[str] = []
    for piece in reversed(pieces):
        if len(piece) >= len(rest):
            return [rest, *left] if rest else left
        left.insert(0, piece)
        rest = rest[: -len(piece)] if piece else rest
    return left


FORMED = '{"x": 1}'
"""What it writes where a schema or a tool asks for something, whatever that is."""


def called(fields: dict[str, Any]) -> str | None:
    """The tool that is to be called: the first that is offered, where one is asked for."""
    tools, choice = fields.get("tools"), fields.get("tool_choice")
    if not isinstance(tools, list) or not tools or choice in (None, "none", "auto"):
        return None
    return str(tools[0]["function"]["name"])


def answer_to(fields: dict[str, Any], chunks: int) -> Answer:
    messages = fields.get("messages") or []
    last = messages[-1] if messages and isinstance(messages[-1], dict) else {}
    prefix = last.get("content") if last.get("role") == "assistant" else ""
    pieces = continued(whole_answer(fields, chunks), prefix if isinstance(prefix, str) else "")
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    allowed = len(pieces) if limit is None else int(limit)
    return Answer(
        pieces=pieces[:allowed],
        finish_reason="length" if allowed < len(pieces) else "stop",
        prompt_tokens=max(1, len(json.dumps(messages or fields.get("prompt", ""))) // 4),
    )


def usage_of(answer: Answer) -> dict[str, int]:
    made = len(answer.pieces)
    total = answer.prompt_tokens + made
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": made, "total_tokens": total}


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def chat_events(answer: Answer, base: dict[str, Any], include_usage: bool) -> list[bytes]:
    def chunk(delta: dict[str, str], finish: str | None) -> bytes:
        return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    base = {**base, "object": "chat.completion.chunk"}
    events = [chunk({"role": "assistant", "content": ""}, None)]
    events += [chunk({"content": piece}, None) for piece in answer.pieces]
    events.append(chunk({}, answer.finish_reason))
    if include_usage:
        events.append(event({**base, "choices": [], "usage": usage_of(answer)}))
    return [*events, DONE]


def text_events(answer: Answer, base: dict[str, Any], include_usage: bool) -> list[bytes]:
    def chunk(text: str, finish: str | None) -> bytes:
        return event({**base, "choices": [{"index": 0, "text": text, "finish_reason": finish}]})

    base = {**base, "object": "text_completion"}
    events = [chunk(piece, None) for piece in answer.pieces]
    events.append(chunk("", answer.finish_reason))
    if include_usage:
        events.append(event({**base, "choices": [], "usage": usage_of(answer)}))
    return [*events, DONE]


def typed(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + event(value)


def message_events(answer: Answer, base: dict[str, Any]) -> list[bytes]:
    """A stream of /v1/messages."""
    usage = {"input_tokens": answer.prompt_tokens, "output_tokens": 0}
    message = {**base, "type": "message", "role": "assistant", "content": [], "usage": usage}
    stop = {"stop": "end_turn", "length": "max_tokens"}[answer.finish_reason]
    block = {"type": "text", "text": ""}
    return [
        typed({"type": "message_start", "message": message}),
        typed({"type": "content_block_start", "index": 0, "content_block": block}),
        *(
            typed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
            for piece in answer.pieces
        ),
        typed({"type": "content_block_stop", "index": 0}),
        typed(
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": len(answer.pieces)},
            }
        ),
        typed({"type": "message_stop"}),
    ]


def response_events(answer: Answer, base: dict[str, Any]) -> list[bytes]:
    """A stream of /v1/responses."""
    item_id = f"msg-{base['id']}"
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    text = "".join(answer.pieces)
    part = {"type": "output_text", "text": text}
    item = {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    begun = {**base, "object": "response", "status": "in_progress"}
    usage = {"input_tokens": answer.prompt_tokens, "output_tokens": len(answer.pieces)}
    whole = {**begun, "status": "completed", "output": [item], "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": piece} for piece in answer.pieces),
        {"type": "response.output_text.done", **place, "text": text},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [typed({**each, "sequence_number": number}) for number, each in enumerate(events)]


def typed_completion(
    fields: dict[str, Any], *, model: str, chunks: int, number: int, messages: bool
) -> Reply:
    """The stream of a request to /v1/messages or /v1/responses."""
    answer = answer_to(fields, chunks)
    base = {
        "id": f"{'msg' if messages else 'resp'}-{os.getpid()}-{number}",
        "model": fields.get("model", model),
    }
    if messages:
        return stream_reply(message_events(answer, base), lead=2, text=len(answer.pieces))
    return stream_reply(response_events(answer, base), lead=4, text=len(answer.pieces))


def tool_reply(name: str, base: dict[str, Any], answer: Answer) -> Reply:
    """A chat completion that calls a tool."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": FORMED}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return json_reply({**base, "object": "chat.completion", "choices": [choice], "usage": usage_of(answer)})


def completion(fields: dict[str, Any], *, model: str, chunks: int, number: int, chat: bool) -> Reply:
    """The reply to one request; `model` and `chunks` where it names none."""
    answer = answer_to(fields, chunks)
    prefix = "chatcmpl" if chat else "cmpl"
    identity = f"{prefix}-{os.getpid()}-{number}"
    base: dict[str, Any] = {"id": identity, "created": 1, "model": fields.get("model", model)}
    if fields.get("stream"):
        include_usage = bool((fields.get("stream_options") or {}).get("include_usage"))
        make = chat_events if chat else text_events
        events = make(answer, base, include_usage)
        return stream_reply(events, lead=1 if chat else 0, text=len(answer.pieces))
    if chat and (name := called(fields)) is not None:
        return tool_reply(name, base, answer)
    text = "".join(answer.pieces)
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish_reason}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    kind = "chat.completion" if chat else "text_completion"
    return json_reply({**base, "object": kind, "choices": [choice], "usage": usage_of(answer)})
