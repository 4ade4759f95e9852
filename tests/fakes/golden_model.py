"""A model that knows the golden screens by heart, served over HTTP, and ways of serving it badly.

It answers a screen with the tap that is right for what is asked, counts a word, a mark and 28 by 28 pixels as
a token each, and heeds `max_tokens`, `stop`, `stream` and its context.
"""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from autoglm_serve.verify.golden import golden_screens

NAME = "golden-phone"
CONTEXT_TOKENS = 16_384
_TOKEN = re.compile(r"\w+|[^\w\s]")

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Said:
    text: str
    thought: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int
    output_tokens: int
    model: str = NAME


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How the model is served; each field is one thing that servers get wrong."""

    given: Callable[[list[Message]], list[Message]] = field(default=lambda messages: messages)
    says: Callable[[str], str] = field(default=lambda text: text)
    told: Callable[[Said], Said] = field(default=lambda said: said)
    pieces: Callable[[list[str]], list[str]] = field(default=lambda pieces: pieces)
    ends: bool = True
    """A stream has its finish_reason and [DONE]."""
    stops: bool = True
    refuses: bool = True
    """What is longer than the context; else its beginning is dropped."""
    exchanges: bool = False
    """Two answers that are ready at the same time go to each other's clients."""


def words(text: str) -> list[str]:
    return _TOKEN.findall(text)


def picture_tokens(url: str) -> int:
    head = base64.b64decode(url.partition(",")[2][:64])
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return -(-width // 28) * -(-height // 28)


def parts_of(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def tokens_of(messages: list[Message]) -> int:
    return sum(3 + sum(map(_part_tokens, parts_of(message))) for message in messages)


def _part_tokens(part: dict[str, Any]) -> int:
    return picture_tokens(part["image_url"]["url"]) if "image_url" in part else len(words(part["text"]))


def answer(messages: list[Message]) -> str:
    """The right tap for what the last turn asks of its picture."""
    parts = parts_of(messages[-1])
    asked = "".join(part.get("text", "") for part in parts)
    shown = next((part["image_url"]["url"] for part in parts if "image_url" in part), None)
    for screen in golden_screens():
        if screen.task in asked and shown == screen.url:
            left, top, right, bottom = screen.target
            action = f'do(action="Tap", element=[{(left + right) // 2},{(top + bottom) // 2}])'
            return f"<think>I look for it. {screen.task}</think><answer>{action}</answer>"
    return f'<think></think><answer>finish(message="{len(asked)} letters, and I can not see it.")</answer>'


class _Crowd:
    """Lets two answers that are under way at the same time change places."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[threading.Event, list[Said]]] = []

    def exchange(self, said: Said) -> Said:
        with self._lock:
            if self._waiting:
                event, box = self._waiting.pop()
                other = box[0]
                box[0] = said
                event.set()
                return other
            mine: tuple[threading.Event, list[Said]] = (threading.Event(), [said])
            self._waiting.append(mine)
        met = mine[0].wait(0.05)
        with self._lock:
            if not met and mine in self._waiting:
                self._waiting.remove(mine)
        return mine[1][0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    serving: Serving
    crowd: _Crowd

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"data": [{"id": NAME, "max_model_len": CONTEXT_TOKENS}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            self._json(404, {"error": {"message": "no such path"}})
        elif body["model"] != NAME:
            self._json(404, {"error": {"message": "no such model"}})
        else:
            self._chat(body)

    def _chat(self, body: dict[str, Any]) -> None:
        serving = self.serving
        messages = serving.given(body["messages"])
        if tokens_of(messages) > CONTEXT_TOKENS and serving.refuses:
            self._json(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
            return
        said = serving.told(self._said(body, messages))
        if serving.exchanges:
            said = self.crowd.exchange(said)
        if body.get("stream"):
            self._stream(said)
        else:
            self._json(200, _completion(said))

    def _said(self, body: dict[str, Any], messages: list[Message]) -> Said:
        text, reason = self.serving.says(answer(messages)), "stop"
        for mark in body.get("stop") or () if self.serving.stops else ():
            text = text.partition(mark)[0]
        pieces = words(text)
        if len(pieces) > body["max_tokens"]:
            pieces, reason = pieces[: body["max_tokens"]], "length"
            text = " ".join(pieces)
        return Said(
            text=text, finish_reason=reason, output_tokens=len(pieces),
            prompt_tokens=min(tokens_of(messages), CONTEXT_TOKENS),
        )  # fmt: skip

    def _json(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, said: Said) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        pieces = self.serving.pieces([said.text[at : at + 7] for at in range(0, len(said.text), 7)])
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
        if self.serving.ends:
            events += [
                {"choices": [{"delta": {}, "finish_reason": said.finish_reason}]},
                {"choices": [], "usage": _usage(said)},
            ]
        for event in events:
            self.wfile.write(b"data: " + json.dumps({"model": said.model, **event}).encode() + b"\n\n")
        if self.serving.ends:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def _completion(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.thought:
        message["reasoning_content"] = said.thought
    choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
    return {"model": said.model, "choices": [choice], "usage": _usage(said)}


def _usage(said: Said) -> dict[str, int]:
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.prompt_tokens + said.output_tokens,
    }


@contextmanager
def served(serving: Serving) -> Iterator[str]:
    """The address of the model, served in that way."""
    handler = type("Handler", (_Handler,), {"serving": serving, "crowd": _Crowd()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
