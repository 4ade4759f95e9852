"""`autoglm chat`: talk to a model in the terminal; what is streamed is shown as it comes."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import ADDRESS, KEY_VARIABLE, RunningService
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError, ExitCode
from autoglm_serve.launch.listeners import local_url

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
    parser.add_argument(
        "--api-key",
        default=os.environ.get(KEY_VARIABLE) or "EMPTY",
        metavar="KEY",
        help=f"The API key to send. [{KEY_VARIABLE}, or EMPTY]",
    )
    parser.add_argument("--model", dest="name", metavar="NAME", help="Whom to ask. [the first there is]")
    parser.add_argument(
        "--system", metavar="TEXT", help="Instructions that the conversation begins with. [none]"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="The longest answer. [the service's own bound]"
    )
    add_flags(parser, only=ADDRESS, words=ADDRESS)


def run(args: Namespace, options: Options) -> int:
    url = args.url or local_url(options.host, options.port, tls=options.tls_cert is not None)
    talk = TerminalChat(RunningService(url, args.api_key), name=args.name, max_tokens=args.max_tokens)
    if args.system:
        talk.messages.append({"role": "system", "content": args.system})
    pictures = [picture_part(Path(name)) for name in args.image]
    text = " ".join(args.text) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if text:
        _show(talk.say(text, pictures))
        return ExitCode.OK
    return _converse(talk, pictures)


def _converse(talk: "TerminalChat", pictures: list[dict[str, Any]]) -> int:
    print(f"{talk.name} at {talk.server.url}/v1. /image FILE shows it a picture, /exit or Ctrl-D ends.")
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

    def __init__(self, server: RunningService, *, name: str | None, max_tokens: int | None) -> None:
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
        for piece in self.server.stream("/v1/chat/completions", body):
            answer += piece
            yield piece
        self.messages.append({"role": "assistant", "content": answer})


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
