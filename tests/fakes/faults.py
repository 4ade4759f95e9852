"""How the faulty engine breaks: each fault by name, when it strikes, and what it does to a reply.

The list for people is in `faulty_engine`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.fakes.answers import DONE, Reply, error_reply, event, json_reply, raw_reply

ENGINE_DEATH = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root '
    b'cause.", "type": "InternalServerError", "param": null, "code": 500}}\n\n'
)


@dataclass(frozen=True, slots=True)
class Fault:
    """`name[:arg[:arg]]`; `at` is the number of pieces after which it strikes, None before the head."""

    name: str
    args: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> "Fault | None":
        if not text:
            return None
        name, *args = text.split(":")
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}")
        return cls(name, tuple(args))

    @property
    def at(self) -> int | None:
        return int(self.args[0]) if self.args else None

    @property
    def strikes(self) -> bool:
        """It happens at one moment of the reply (the others colour the whole of it)."""
        return self.name in STRIKES


class Line(Protocol):
    """The connection that a fault strikes."""

    async def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def reset(self) -> None: ...


class Broken(Exception):
    """The reply ends here, by the fault's will."""


Strike = Callable[[Line, Reply, Fault], Awaitable[None]]


async def hang(line: Line, reply: Reply, fault: Fault) -> None:
    await asyncio.Event().wait()


async def kill(line: Line, reply: Reply, fault: Fault) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def leave(line: Line, reply: Reply, fault: Fault) -> None:
    sys.stdout.write("faulty engine: leaving with status 1, as asked\n")
    sys.stdout.flush()
    os._exit(1)


async def freeze(line: Line, reply: Reply, fault: Fault) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


async def reset(line: Line, reply: Reply, fault: Fault) -> None:
    line.reset()
    raise Broken


async def fin(line: Line, reply: Reply, fault: Fault) -> None:
    line.close()
    raise Broken


async def half(line: Line, reply: Reply, fault: Fault) -> None:
    part = reply.framed(reply.parts[min(reply.lead_parts + (fault.at or 0), len(reply.parts) - 1)])
    await line.write(part[: len(part) // 2])
    line.close()
    raise Broken


async def error(line: Line, reply: Reply, fault: Fault) -> None:
    await line.write(reply.framed(ENGINE_DEATH) + reply.framed(DONE) + reply.tail)
    raise Broken


async def end(line: Line, reply: Reply, fault: Fault) -> None:
    await line.write(reply.tail)
    raise Broken


async def done(line: Line, reply: Reply, fault: Fault) -> None:
    await line.write(reply.framed(DONE) + reply.tail)
    raise Broken


async def garbage(line: Line, reply: Reply, fault: Fault) -> None:
    await line.write(reply.framed(b'data: {"choices": [}\xff\xfe\x00 not json\n\n'))


async def odd(line: Line, reply: Reply, fault: Fault) -> None:
    await line.write(reply.framed(event({"choices": [None, {"delta": {"tool_calls": 5}}]})))
    await kill(line, reply, fault)


async def huge_event(line: Line, reply: Reply, fault: Fault) -> None:
    size = int(fault.args[0])
    content = {"choices": [{"index": 0, "delta": {"content": "x" * size}, "finish_reason": None}]}
    await line.write(reply.framed(event(content)))


def _ended(reply: Reply, reason: str) -> bytes:
    """The last events of a stream that the engine gives up in the shape of an end."""
    first = reply.parts[0]
    if first.startswith(b"event: message_start"):
        return event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {}})
    if first.startswith(b"event: response.created"):
        response = {"object": "response", "status": "incomplete", "incomplete_details": {"reason": reason}}
        return event({"type": "response.incomplete", "response": response})
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    choice["text" if b'"text_completion"' in first else "delta"] = ""
    return event({"choices": [choice]})


async def abort(line: Line, reply: Reply, fault: Fault) -> None:
    ends = _ended(reply, fault.args[1] if len(fault.args) > 1 else "abort") + DONE
    await line.write(reply.framed(ends) + reply.tail)
    raise Broken


STRIKES: dict[str, Strike] = {
    "hang": hang,
    "kill": kill,
    "exit": leave,
    "freeze": freeze,
    "reset": reset,
    "fin": fin,
    "half": half,
    "error": error,
    "end": end,
    "done": done,
    "garbage": garbage,
    "odd": odd,
    "abort": abort,
    "huge_event": huge_event,
}
NEED_A_HEAD = frozenset({"half", "error", "end", "done", "garbage", "odd", "abort", "huge_event"})
FAULTS = frozenset(STRIKES) | {
    *("page", "nothing", "half_json", "error_body"),
    *("status", "huge_header", "bad_head", "drip", "split", "crlf", "pings", "close", "cut"),
}


def strike_index(fault: Fault | None, reply: Reply) -> int | None:
    """The part before which the fault strikes; None: before the head."""
    if fault is None or not fault.strikes:
        return len(reply.parts) + 1
    if fault.name == "abort" and not reply.chunked:
        return len(reply.parts) + 1  # `coloured` has said it
    if fault.name == "huge_event":
        return reply.lead_parts
    if fault.at is None:
        return reply.lead_parts if fault.name in NEED_A_HEAD else None
    if not reply.chunked:
        return min(fault.at, 1)
    # At the latest before the finish event: a fault that comes after the answer's end is no fault.
    return reply.lead_parts + min(fault.at, reply.text_parts)


def coloured(reply: Reply, fault: Fault | None) -> Reply:
    """The reply as a fault of its whole form makes it."""
    match fault:
        case Fault("status", args):
            return error_reply(int(args[0]), args[1] if len(args) > 1 else None)
        case Fault("page"):
            return raw_reply(b"<html><body>Bad gateway</body></html>", kind="text/html")
        case Fault("nothing"):
            return raw_reply(b"")
        case Fault("half_json"):
            return raw_reply(b'{"id":"x","choices":[{"index":0,"mess')
        case Fault("error_body"):
            return json_reply({"error": {"message": "the engine is dead", "code": 500}})
        case Fault("abort") if not reply.chunked:
            body = b"".join(reply.parts).replace(b'"stop"', b'"abort"').replace(b'"length"', b'"abort"')
            return raw_reply(body)
        case Fault("huge_header", args):
            reply.head = reply.head[:-2] + b"x-huge: " + b"h" * int(args[0]) + b"\r\n\r\n"
        case Fault("bad_head"):
            reply.head = b"\x16\x03\x01 this is no HTTP \r\n\r\n"
        case Fault("crlf"):
            reply.parts = [part.replace(b"\n", b"\r\n") for part in reply.parts]
        case Fault("pings"):
            reply.parts = [b": ping\n\n" + part for part in reply.parts]
        case _:
            pass
    return reply
