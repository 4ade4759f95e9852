"""What the two ends of the control channel tell each other, as values and as lines.

Down to a gateway worker come the fleet view, its changes, and the answer to a question; up go messages. For a
moment a control plane has workers of another version, and they have it: the keys of a line are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from autoglm_serve.core.codec import from_plain, to_json
from autoglm_serve.core.fleet import FleetChange, FleetView
from autoglm_serve.core.request_line import RequestLine
from autoglm_serve.core.status import ServiceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer:
    """How the service is, for the worker that asked."""

    status: ServiceStatus


News = FleetView | FleetChange | StatusAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A worker is on the line."""

    worker_id: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """It takes connections."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """It takes no more connections, and ends when it has finished what it carries."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeModel:
    """A request waits for a model that runs on demand."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusQuestion:
    """How is the service? Only the control plane knows; it answers this worker alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request is over, and somebody wants to be told of it."""

    request: RequestLine


WorkerMessage = Joined | Serving | Leaving | WakeModel | RequestEnded


class UnknownMessage(ValueError):
    """What a worker said is none of these."""


def encode_news(news: News) -> bytes:
    """One line of JSON, no newline."""
    return to_json(news)


def decode_news(line: bytes) -> News:
    """The inverse of `encode_news`. Raises ValueError or TypeError on anything else."""
    plain = orjson.loads(line)
    for key, kind in _KINDS.items():
        if key in plain:
            news: News = from_plain(kind, plain)
            return news
    raise ValueError("no news")


_KINDS: Mapping[str, type[Any]] = MappingProxyType(
    {"since": FleetChange, "status": StatusAnswer, "replicas": FleetView}
)
"""By a key that none of the others has."""


def encode_message(message: WorkerMessage | StatusQuestion) -> bytes:
    """One line of JSON, no newline."""
    match message:
        case Joined():
            return orjson.dumps({"worker": message.worker_id, "pid": message.pid})
        case Serving():
            return orjson.dumps({"serving": message.pid})
        case Leaving():
            return orjson.dumps({"leaving": message.pid})
        case WakeModel():
            return orjson.dumps({"wake": message.model})
        case RequestEnded():
            return to_json(message)
        case StatusQuestion():
            return orjson.dumps({"asks": "status"})


def decode_message(line: bytes) -> WorkerMessage | StatusQuestion:
    """The inverse of `encode_message`. Raises UnknownMessage on anything else."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        said = None
    match said:
        case {"worker": int(worker_id), "pid": int(pid)}:
            return Joined(worker_id=worker_id, pid=pid)
        case {"serving": int(pid)}:
            return Serving(pid=pid)
        case {"leaving": int(pid)}:
            return Leaving(pid=pid)
        case {"wake": str(model)}:
            return WakeModel(model=model)
        case {"request": {**request}}:
            return RequestEnded(request=_request_line(request))
        case {"asks": "status"}:
            return StatusQuestion()
        case _:
            raise UnknownMessage(f"a gateway worker said something unknown: {line[:200]!r}")


def _request_line(said: object) -> RequestLine:
    try:
        line: RequestLine = from_plain(RequestLine, said)
    except (ValueError, TypeError) as error:
        raise UnknownMessage(f"a gateway worker told of a request in other words: {error}") from error
    return line
