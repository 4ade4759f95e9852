"""What is asked: sessions, each a sequence of requests that may need earlier answers. No sockets, no clock.

A workload is made once for a run and hands out sessions by number; the same seed gives the same requests.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from autoglm_serve.bench.picture import ScreenPage, data_url, jpeg, page
from autoglm_serve.core.errors import ConfigError

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/transcriptions"
_PAGES = 4
_SYLLABLES = (
    "open",
    "the",
    "list",
    "page",
    "tap",
    "name",
    "wait",
    "for",
    "send",
    "text",
    "home",
    "back",
    "设置",
    "消息",
)
_CHARACTERS_PER_TOKEN = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """One request of a session."""

    path: str
    body: bytes
    content_type: str = "application/json"
    streamed: bool = True
    wait_s: float = 0.0
    """Of thought, before it is sent."""
    at_s: float | None = None
    """When it is due, from the beginning of the run; None: as soon as the one before has been answered."""


class Session(Protocol):
    """One client. It is asked for its next request and told what came of it, in turns."""

    def next(self) -> SessionRequest | None:
        """None once it has nothing more to ask."""
        ...

    def answered(self, text: str) -> None: ...


class Sessions(Protocol):
    """Sessions without end, told apart by their numbers."""

    def session(self, number: int) -> Session: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """How large requests and answers are."""

    model: str
    seed: int = 0
    system_tokens: int = 1_900
    text_tokens: int = 40
    output_tokens: int = 128
    """On average: each answer is bounded at between half and one and a half times as many."""
    width_px: int = 1080
    height_px: int = 2400
    image_format: str = "png"
    """png or jpeg."""
    steps: int = 10
    """Of one task, after which its session begins another one."""
    think_s: float = 0.0
    exact_length: bool = False
    """Ask for ignore_eos, so that answers are as long as their bound (vLLM and SGLang know the field)."""


def words(dice: random.Random, tokens: int) -> str:
    """About so many tokens of text."""
    text, length = [], 0.0
    while length < tokens * _CHARACTERS_PER_TOKEN:
        text.append(dice.choice(_SYLLABLES))
        length += len(text[-1]) + 1
    return " ".join(text)


def _bound(shape: RequestShape, dice: random.Random) -> int:
    return max(1, round(shape.output_tokens * dice.uniform(0.5, 1.5)))


def _chat(shape: RequestShape, messages: Sequence[Mapping[str, Any]], limit: int) -> bytes:
    body: dict[str, Any] = {
        "model": shape.model,
        "messages": messages,
        "max_tokens": limit,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if shape.exact_length:
        body["ignore_eos"] = True
    return json.dumps(body, ensure_ascii=False).encode()


class Screens:
    """Screenshots by number, none of them twice."""

    def __init__(self, shape: RequestShape) -> None:
        self._shape = shape
        self._page = lru_cache(_PAGES)(self._make)

    def url(self, number: int) -> str:
        picture = self._page(number % _PAGES).png(number)
        if self._shape.image_format == "jpeg":
            return data_url(jpeg(picture), "jpeg")
        return data_url(picture, "png")

    def _make(self, number: int) -> ScreenPage:
        return page(self._shape.width_px, self._shape.height_px, self._shape.seed * _PAGES + number)


@dataclass(slots=True, kw_only=True)
class _AgentSession:
    """A phone agent: each step a fresh screenshot, the text of all steps before, older pictures removed."""

    shape: RequestShape
    screens: Screens
    number: int
    dice: random.Random
    system: str
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    asked: str = ""

    def next(self) -> SessionRequest:
        if self.step % self.shape.steps == 0:
            self.history = [{"role": "system", "content": self.system}]
        picture = self.screens.url((self.number << 24) + self.step)
        self.asked = f"** {self.number}.{self.step} ** {words(self.dice, self.shape.text_tokens)}"
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": self.asked},
        ]
        messages = [*self.history, {"role": "user", "content": content}]
        self.step += 1
        limit = _bound(self.shape, self.dice)
        return SessionRequest(path=CHAT, body=_chat(self.shape, messages, limit), wait_s=self._thought_s())

    def answered(self, text: str) -> None:
        self.history += [
            {"role": "user", "content": self.asked},
            {"role": "assistant", "content": text or "-"},
        ]

    def _thought_s(self) -> float:
        return self.shape.think_s * self.dice.uniform(0.5, 1.5) if self.step > 1 else 0.0


class Agent:
    """Sessions as Open-AutoGLM makes them, with one system prompt for all."""

    def __init__(self, shape: RequestShape) -> None:
        self._shape = shape
        self._screens = Screens(shape)
        self._system = f"Run {shape.seed}. {words(random.Random(shape.seed), shape.system_tokens)}"

    def session(self, number: int) -> Session:
        return _AgentSession(
            shape=self._shape,
            screens=self._screens,
            number=number,
            dice=random.Random(f"{self._shape.seed} {number}"),
            system=self._system,
        )


@dataclass(slots=True, kw_only=True)
class _SingleQuestions:
    """Requests that have nothing to do with each other."""

    shape: RequestShape
    number: int
    dice: random.Random
    screens: Screens | None = None
    asked: int = 0

    def next(self) -> SessionRequest:
        text = f"{self.number}.{self.asked} {words(self.dice, self.shape.text_tokens)}"
        content: Any = text
        if self.screens is not None:
            picture = {"url": self.screens.url((self.number << 24) + self.asked)}
            content = [{"type": "image_url", "image_url": picture}, {"type": "text", "text": text}]
        self.asked += 1
        limit = _bound(self.shape, self.dice)
        body = _chat(self.shape, [{"role": "user", "content": content}], limit)
        return SessionRequest(path=CHAT, body=body, wait_s=self.shape.think_s if self.asked > 1 else 0.0)

    def answered(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Single questions: text alone, or one picture each."""

    shape: RequestShape
    screens: Screens | None = None

    def session(self, number: int) -> Session:
        dice = random.Random(f"{self.shape.seed} {number}")
        return _SingleQuestions(shape=self.shape, number=number, dice=dice, screens=self.screens)


@dataclass(slots=True, kw_only=True)
class _Sounds:
    model: str
    sound: bytes
    name: str

    def next(self) -> SessionRequest:
        boundary = "autoglm-bench-boundary"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{self.model}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{self.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + self.sound + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return SessionRequest(path=SPEECH, body=body, content_type=kind, streamed=False)

    def answered(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """One clip, sent again and again: engines keep nothing of a sound."""

    model: str
    file: Path

    def session(self, number: int) -> Session:
        try:
            sound = self.file.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{self.file} cannot be read.",
                why=error.strerror or str(error),
                next_step="Name a sound file.",
            ) from error
        return _Sounds(model=self.model, sound=sound, name=self.file.name)


@dataclass(slots=True, kw_only=True)
class _Recorded:
    asks: Iterator[SessionRequest]

    def next(self) -> SessionRequest | None:
        return next(self.asks, None)

    def answered(self, text: str) -> None: ...


class Replay:
    """Recorded requests at their times: one JSON object a line with `at_s`, `body` and, if it is not a chat,
    `path`. Session n has every line whose `session` is n, or, where no line says one, line n alone.
    """

    def __init__(self, file: Path, *, model: str, speed: float = 1.0) -> None:
        """`speed` 2 sends it in half the time. Raises ConfigError where a line is not such an object."""
        self._sessions: list[list[SessionRequest]] = []
        by_name: dict[object, list[SessionRequest]] = {}
        for number, line in enumerate(_lines(file), 1):
            record = _record(file, number, line)
            ask = _recorded_ask(record, model, speed)
            by_name.setdefault(record.get("session", ("line", number)), []).append(ask)
        self._sessions = [sorted(asks, key=lambda ask: ask.at_s or 0.0) for asks in by_name.values()]

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, number: int) -> Session:
        return _Recorded(asks=iter(self._sessions[number] if number < len(self._sessions) else ()))


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from (line for line in lines if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read.", why=str(error), next_step="Name a file.") from error


def _record(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record["body"], dict) and float(record.get("at_s", 0.0)) >= 0.0:
            return dict(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ConfigError(
        f"{file}:{number} is no recorded request.",
        why='Expected {"at_s": seconds from the beginning, "body": {…}}.',
        next_step="Correct the line or leave it out.",
    )


def _recorded_ask(record: Mapping[str, Any], model: str, speed: float) -> SessionRequest:
    body = {**record["body"], "model": model}
    return SessionRequest(
        path=str(record.get("path", CHAT)),
        body=json.dumps(body, ensure_ascii=False).encode(),
        streamed=bool(body.get("stream")),
        at_s=float(record.get("at_s", 0.0)) / speed,
    )
