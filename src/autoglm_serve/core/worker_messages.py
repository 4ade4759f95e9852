"""What a gateway worker says to the control plane, as values and as lines.

Down the same channel come fleet views and their changes (`fleet_codec`).
"""

from dataclasses import dataclass

import orjson


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


class UnknownMessage(ValueError):
    """What came is none of these."""


WorkerMessage = Joined | Serving | Leaving | WakeModel


def encode(message: WorkerMessage) -> bytes:
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


def decode(line: bytes) -> WorkerMessage:
    """The inverse of `encode`. Raises UnknownMessage on anything else."""
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
        case _:
            raise UnknownMessage(f"a gateway worker said something unknown: {line[:200]!r}")
