"""`autoglm chat`: talk to a model in the terminal; what is streamed is shown as it comes."""

import http.client
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autoglm_serve.cli.admin import ADDRESS
from autoglm_serve.cli.parser import add_flags
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError, ExitCode, Unreachable
from autoglm_serve.launch.listeners import local_url

_TIMEOUT_S = 600.0
_LIST_TIMEOUT_S = 10.0
_MEDIA_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif", ".bmp": "bmp"}
_END = frozenset({"/exit", "/quit", "/bye"})


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "autoglm chat [flags] [TEXT]"
    parser.add_argument(
        "text", nargs="*", metavar="TEXT", help="Ask this and leave; without it, a conversation."
    )
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="Show it this picture first."
    )
    parser.add_argument("--url", metavar="URL", help="Ask this address instead: http://HOST:PORT or …/v1.")
    parser.add_argument("--api-key", default="EMPTY", metavar="KEY", help="The API key to send. [EMPTY]")
    parser.add_argument("--model", dest="name", metavar="NAME", help="Whom to ask. [the first there is]")
    parser.add_argument(
        "--system", metavar="TEXT", help="Instructions that the conversation begins with. [none]"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="The longest answer. [the service's own bound]"
    )
    add_flags(parser, only=ADDRESS, words=ADDRESS)


def run(args: Namespace, options: Options) -> int:
    url = args.url or local_url(options.host, options.port)
    talk = TerminalChat(Server(url, args.api_key), name=args.name, max_tokens=args.max_tokens)
    if args.system:
        talk.messages.append({"role": "system", "content": args.system})
    pictures = [picture_part(Path(name)) for name in args.image]
    text = " ".join(args.text) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if text:
        _show(talk.say(text, pictures))
        return ExitCode.OK
    return _converse(talk, pictures)


def _converse(talk: "TerminalChat", pictures: list[dict[str, Any]]) -> int:
    print(f"{talk.name} at {talk.server.url}. /image FILE shows it a picture, /exit or Ctrl-D ends.")
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            print()
            return ExitCode.OK
        if text in _END:
            return ExitCode.OK
        if text.startswith("/image "):
            pictures.append(picture_part(Path(text.removeprefix("/image ").strip())))
        elif text:
            _show(talk.say(text, pictures))
            pictures = []


def _show(pieces: Iterator[str]) -> None:
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


class TerminalChat:
    """What was said so far, and who is asked."""

    def __init__(self, server: "Server", *, name: str | None, max_tokens: int | None) -> None:
        self.server = server
        self.name = name or server.first_model()
        self.messages: list[dict[str, Any]] = []
        self._max_tokens = max_tokens

    def say(self, text: str, pictures: list[dict[str, Any]]) -> Iterator[str]:
        """The pieces of the answer, which is part of the conversation once it is whole."""
        content = [*pictures, {"type": "text", "text": text}] if pictures else text
        self.messages.append({"role": "user", "content": content})
        limit = {} if self._max_tokens is None else {"max_tokens": self._max_tokens}
        body = {"model": self.name, "messages": self.messages, "stream": True, **limit}
        answer = ""
        for piece in self.server.stream("/chat/completions", body):
            answer += piece
            yield piece
        self.messages.append({"role": "assistant", "content": answer})


class Server:
    """An OpenAI-compatible address."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}

    def first_model(self) -> str:
        """The name of the first model that it serves."""
        try:
            with closing(self._ask("GET", "/models", None, timeout_s=_LIST_TIMEOUT_S)) as reply:
                return str(json.loads(reply.read())["data"][0]["id"])
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            raise Unreachable(
                f"{self.url} does not say which models it serves.",
                why=str(error) or type(error).__name__,
                next_step="Name one with --model.",
            ) from error

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        """The text of a streamed answer, piece by piece. Raises Unreachable with its words where it fails."""
        reply = self._ask("POST", path, body)
        with closing(reply):
            for line in reply:
                if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                    yield from self._pieces(json.loads(data))

    def _pieces(self, event: dict[str, Any]) -> Iterator[str]:
        if "error" in event:
            raise self._failed(event["error"].get("message", "no reason was given"))
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            yield from (delta[key] for key in ("reasoning", "reasoning_content", "content") if delta.get(key))

    def _ask(
        self, method: str, path: str, body: object, *, timeout_s: float = _TIMEOUT_S
    ) -> http.client.HTTPResponse:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, parts.path + path, body=data, headers=self._headers)
            reply = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"Nothing answers at {self.url}.",
                why=str(error),
                next_step="Start a service with `autoglm serve`, or name an address with --url.",
            ) from error
        if reply.status >= 300:
            raise self._failed(_message(reply.read()))
        return reply

    def _failed(self, why: str) -> Unreachable:
        return Unreachable(
            f"{self.url} does not answer this.",
            why=why,
            next_step="`autoglm status` shows how the service is.",
        )


def _message(body: bytes) -> str:
    """The words of an error envelope; what was answered instead of one, cut short."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def picture_part(path: Path) -> dict[str, Any]:
    """A picture as a part of a message. Raises ConfigError where it cannot be read."""
    import base64  # here: most conversations have no picture

    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        kinds = ", ".join(sorted(_MEDIA_TYPES))
        raise ConfigError(
            f"{path} is no picture by its name.", next_step=f"Give a file that ends in {kinds}."
        )
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read.", why=error.strerror or str(error), next_step="Check the path."
        ) from error
    url = f"data:image/{media_type};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
