"""Recorded requests: JSON lines with a `body`, as `autoglm bench --workload replay` reads them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_serve.core.errors import ConfigError

_CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedChat:
    """One chat that somebody has had."""

    where: str
    """FILE:LINE, for a person who wants to see it."""
    body: dict[str, Any]

    @property
    def picture_url(self) -> str | None:
        """The last picture that it shows, if that is data."""
        urls = [
            part["image_url"]["url"]
            for message in self.body["messages"]
            if isinstance(message, dict) and isinstance(message.get("content"), list)
            for part in message["content"]
            if isinstance(part, dict) and isinstance(part.get("image_url"), dict)
        ]
        return urls[-1] if urls and urls[-1].startswith("data:") else None


def read(place: Path) -> tuple[RecordedChat, ...]:
    """Every chat of a file, or of the *.jsonl of a folder, in order. Raises ConfigError."""
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    chats = tuple(chat for file in files for chat in _of(file))
    if not chats:
        raise ConfigError(
            f"{place} has no recorded chat.",
            why='A line is one JSON object with a "body" that has "messages".',
            next_step="Name a file of such lines, or a folder of *.jsonl.",
        )
    return chats


def _of(file: Path) -> Iterator[RecordedChat]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read.", why=str(error), next_step="Name a file.") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and (body := _body(file, number, line)) is not None:
            yield RecordedChat(where=f"{file.name}:{number}", body=body)


def _body(file: Path, number: int, line: str) -> dict[str, Any] | None:
    """None where it is no chat."""
    try:
        record = json.loads(line)
        if record.get("path", _CHAT) != _CHAT:
            return None
        if isinstance(record["body"]["messages"], list):
            return dict(record["body"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise ConfigError(
        f"{file}:{number} is no recorded request.",
        why='Expected {"body": {"messages": […], …}}.',
        next_step="Correct the line or leave it out.",
    )
