"""A client that speaks HTTP/1.1 byte by byte, well or badly, over one connection."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.gateway.gateway_process import GatewayProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True
    """False where the connection ended before the body did."""

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error

    @property
    def text(self) -> str:
        """The content of a streamed or a whole chat completion."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        events = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: {")]
        choices = [choice for event in events for choice in json.loads(event).get("choices", ())]
        return "".join(choice["delta"].get("content", "") for choice in choices)


class Wire:
    """One connection. `send` writes what it is given; `answer` reads the next answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.file = connection.makefile("rb")

    def send(self, *pieces: bytes | str) -> "Wire":
        for piece in pieces:
            self.socket.sendall(piece if isinstance(piece, bytes) else piece.encode())
        return self

    def answer(self, *, head_only: bool = False) -> Answer:
        status = int(self.file.readline().split()[1])
        headers = dict(self._headers())
        if head_only or status in (100, 204):
            return Answer(status=status, headers=headers, body=b"")
        if headers.get("transfer-encoding") == "chunked":
            body, whole = self._chunks()
        elif "content-length" in headers:
            length = int(headers["content-length"])
            body = self.file.read(length)
            whole = len(body) == length
        else:
            body, whole = self.rest(), True
        return Answer(status=status, headers=headers, body=body, whole=whole)

    def line(self) -> bytes:
        return self.file.readline()

    def rest(self) -> bytes:
        """What comes until the connection ends."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b""

    @property
    def ended(self) -> bool:
        return self.rest() == b""

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self.file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            yield name.lower(), value.strip()

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while line := self.file.readline():
                size = int(line, 16)
                body += self.file.read(size)
                self.file.read(2)
                if not size:
                    return body, True
        except ConnectionResetError:
            pass
        return body, False


@contextmanager
def wire(gateway: GatewayProcess) -> Iterator[Wire]:
    with gateway.connect() as connection:
        client = Wire(connection)
        with client.file:  # it keeps the socket open as long as it is
            yield client


def post(body: object, path: str = "/v1/chat/completions", *headers: str) -> bytes:
    """A whole POST request, as most clients write it."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


def chat(content: object = "hello", **fields: object) -> dict[str, object]:
    return {"model": "demo", "messages": [{"role": "user", "content": content}], **fields}
