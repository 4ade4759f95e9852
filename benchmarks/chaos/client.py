"""A client that believes nothing: it keeps what it was sent, when it came, and says what is wrong with it."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Fields = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Answer:
    """All of one reply, however it ended."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    arrivals_s: list[float] = field(default_factory=list)
    """When each piece of the body came; the first entry is when the request was sent."""
    whole: bool = False
    """HTTP's own framing came to its end."""
    lost: str = ""
    """How the connection failed, where it did."""

    @property
    def events(self) -> list[bytes]:
        lines = bytes(self.body).replace(b"\r\n", b"\n").split(b"\n")
        return [line[6:] for line in lines if line.startswith(b"data: ")]

    @property
    def values(self) -> list[Fields]:
        return [json.loads(event) for event in self.events if event != b"[DONE]"]

    @property
    def text(self) -> str:
        return "".join((choice.get("delta") or {}).get("content") or "" for choice in self._choices)

    @property
    def error(self) -> str:
        """The code of the error that it ends in; empty where it is an answer."""
        if self.status == 200:
            return next((str(value["error"].get("code")) for value in self.values if "error" in value), "")
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return f"status {self.status}"

    @property
    def longest_pause_s(self) -> float:
        """Between two pieces; the wait for the first is none."""
        times = self.arrivals_s[1:]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    @property
    def _choices(self) -> list[Fields]:
        return [choice for value in self.values for choice in value.get("choices") or ()]

    def wrong(self) -> list[str]:
        """What no client should ever see of a stream; an honest error at its end is not among it."""
        if self.status != 200:
            return [] if self.error else ["an error without an envelope"]
        if not self.body.endswith((b"\n\n", b"\n\r\n")):
            return ["half an event"]
        try:
            values = self.values
        except ValueError:
            return ["an event that is no JSON"]
        told = []
        if self.events.count(b"[DONE]") != 1 or self.events[-1] != b"[DONE]":
            told.append("not exactly one [DONE] at the end")
        # Not `created`: llama.cpp looks at the clock for each event.
        ids = {(value["id"], value["model"]) for value in values if "id" in value}
        if len(ids) > 1:
            told.append(f"{len(ids)} identities")
        if sum(bool((choice.get("delta") or {}).get("role")) for choice in self._choices) > 1:
            told.append("several roles")
        finishes = [choice["finish_reason"] for choice in self._choices if choice.get("finish_reason")]
        if len(finishes) != (0 if self.error else 1):
            told.append(f"{len(finishes)} finish reasons")
        return told


Watch = Callable[[Answer], None]


async def ask(port: int, fields: Fields, *, on_piece: Watch | None = None, client: str = "") -> Answer:
    """One streamed chat on a connection of its own; `on_piece` is told after each piece of the body."""
    answer = Answer(arrivals_s=[time.perf_counter()])
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        answer.lost = f"cannot connect: {error}"
        return answer
    try:
        writer.write(request(fields, client))
        await read_answer(reader, answer, on_piece)
    except (OSError, EOFError, ValueError) as error:
        answer.lost = repr(error)
    finally:
        writer.transport.abort()
    return answer


def request(fields: Fields, client: str = "") -> bytes:
    """The bytes of one request. Who `client` names takes turns of its own in the queue."""
    body = json.dumps(fields).encode()
    key = f"authorization: Bearer {client}\r\n" if client else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{key}content-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader, answer: Answer, on_piece: Watch | None = None) -> None:
    """The next answer on a connection; raises what asyncio does where it is cut."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    answer.status = int(head[0].split()[1])
    answer.headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    if "content-length" in answer.headers:
        answer.body += await reader.readexactly(int(answer.headers["content-length"]))
    else:
        while size := int(await reader.readline() or b"-1", 16):
            piece = await reader.readexactly(size + 2)
            answer.body += piece[:-2]
            answer.arrivals_s.append(time.perf_counter())
            if on_piece is not None:
                on_piece(answer)
        await reader.readexactly(2)
    answer.whole = True


def chat(question: str, **fields: Any) -> Fields:
    """A greedy, streamed chat."""
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "stream": True, "temperature": 0, **fields}
