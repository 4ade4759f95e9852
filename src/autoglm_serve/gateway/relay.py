"""One attempt: the reply of one replica on its way to one client.

Callbacks, not tasks: a chunk goes from socket to socket in one call. A stream passes as it comes, whole
events only. Anything else is collected and sent in one piece, so that a replica lost in the middle of it
can still be replaced; what grows beyond `_COLLECT_BYTES` passes as it comes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway import reasoning
from autoglm_serve.gateway.envelope import JSON_TYPE, in_our_dialect
from autoglm_serve.gateway.http import Headers
from autoglm_serve.gateway.journal import NO_USAGE, Journal, Usage, before_done, before_error, usage_of
from autoglm_serve.gateway.sse import DONE, event, whole_events
from autoglm_serve.gateway.upstream import Connection

_COLLECT_BYTES = 1 << 20
_MOST_HELD_BYTES = 16 << 20  # of one event, or of a reply that has to be whole before it can be rewritten
_PASSED_ON = frozenset({b"content-type", b"cache-control", b"retry-after", b"content-disposition"})
_TRY_ELSEWHERE = frozenset({500, 502, 503, 504})


class Client(Protocol):
    """The side of the client's connection that a relay writes to."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None: ...

    def start(self, status: int, headers: Headers, first: bytes) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


class Caller(Client, Protocol):
    """A client from its request's first byte to its answer's last."""

    on_pause: Callable[[], None] | None
    on_resume: Callable[[], None] | None

    @property
    def answering(self) -> bool:
        """It has part of an answer."""
        ...

    def refuse(self, refusal: Refusal) -> None: ...

    def abort(self) -> None: ...


class Result(Enum):
    """How an attempt ended."""

    DONE = "done"  # the client has the whole reply
    UNSENT = "unsent"  # nothing reached the client: the request can be tried elsewhere
    BROKEN = "broken"  # the client has part of the reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of one attempt, and what is known of the reply."""

    result: Result
    reason: str = ""
    status: int = 0
    """The replica's status; 0 where none came."""
    headers: Headers = ()
    body: bytes = b""
    """An error reply that was held back, in case no other replica does better."""
    usage: Usage = NO_USAGE


class Relay:
    """Takes an upstream's reply (`upstream.Reply`) and hands it to the client."""

    def __init__(
        self,
        client: Client,
        journal: Journal,
        *,
        ending: "asyncio.Future[Ending]",
        extra: Headers = (),
        split_reasoning: bool = False,
        ends_with_done: bool = True,
        now: "asyncio.AbstractEventLoop",
    ) -> None:
        self._client = client
        self._journal = journal
        self._ending = ending
        self._extra = extra
        self._clock = now
        self._split = split_reasoning
        self._ends_with_done = ends_with_done
        self._rewrite = reasoning.StreamSplitter() if split_reasoning else None
        self._status = 0
        self._headers: Headers = ()
        self._streaming = False
        self._started = False
        self._held = b""
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self.first_byte_s: float | None = None
        """Loop time at which the client was sent its first content."""
        self.connection: Connection | None = None

    # upstream.Reply

    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = tuple(header for header in headers if header[0] in _PASSED_ON) + self._extra
        content_type = next((value for name, value in headers if name == b"content-type"), b"")
        self._streaming = status == 200 and content_type.startswith(b"text/event-stream")

    def on_body(self, data: bytes) -> None:
        if self._streaming:
            self._pass_events(data)
        elif self._started:
            self._client.write(data)
        else:
            self._collected.append(data)
            self._collected_bytes += len(data)
            if self._collected_bytes > _COLLECT_BYTES and self._status == 200 and not self._split:
                self._start(b"".join(self._collected))
                self._collected.clear()
            elif self._collected_bytes > _MOST_HELD_BYTES:
                self._lose(f"its reply is longer than {_MOST_HELD_BYTES >> 20} MiB")

    def on_end(self) -> None:
        if self._streaming:
            self._end_stream()
        elif self._started:
            self._client.finish()
            self._settle(Result.DONE)
        else:
            self._end_whole(b"".join(self._collected))

    def on_lost(self, reason: str) -> None:
        if self._started and self._streaming and self._journal.finished:
            self._finish_stream()
        else:
            self._settle(Result.BROKEN if self._started else Result.UNSENT, reason)

    # the client's side

    def pause(self) -> None:
        """The client is slow: stop reading from the replica."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.resume()

    def abandon(self) -> None:
        """Nobody waits any more: drop the connection, unless the reply had ended."""
        if not self._ending.done():
            self._ending.cancel()
        if self.connection is not None:
            self.connection.abort()
            self.connection = None

    # how

    def _pass_events(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        cut = whole_events(data)
        if cut == len(data):
            self._held = b""
        else:
            data, self._held = data[:cut], data[cut:]
            if len(self._held) > _MOST_HELD_BYTES:
                self._lose(f"one of its events is longer than {_MOST_HELD_BYTES >> 20} MiB")
                return
        if data:
            self._send_events(data)

    def _send_events(self, events: bytes) -> None:
        events, error = before_error(events)
        events, done = before_done(events) if self._ends_with_done else (events, b"")
        if events:
            self._forward(events)
        if done and self._journal.finished:
            self._forward(done)
        elif done and not error:  # a dying engine says [DONE] as well: it is not the client's yet
            self._lose("the engine ended the stream without a finish reason")
        if error:  # the client is not shown it: what comes next is the dispatcher's decision
            self._lose(f"the engine ended the stream with {error[:300].decode('utf-8', 'replace')}")

    def _forward(self, events: bytes) -> None:
        if self._rewrite is not None:
            events = self._rewrite.feed(events)
            if not events:
                return
        self._journal.append(events)
        if self._started:
            self._client.write(events)
        else:
            self._start(events)

    def _start(self, first: bytes) -> None:
        self._started = True
        self.first_byte_s = self._clock.time()
        self._client.start(self._status, self._headers, first)

    def _end_stream(self) -> None:
        if self._held.strip():  # an engine that ends its last event with one line break, or none
            self._send_events(self._held.rstrip(b"\r\n") + b"\n\n")
            self._held = b""
        if not self._started:
            self._settle(Result.UNSENT, "the stream ended before its first event")
        elif self._journal.finished:
            self._finish_stream()
        else:
            self._settle(Result.BROKEN, "the stream ended without a finish reason")

    def _finish_stream(self) -> None:
        if self._ends_with_done and DONE not in self._journal.chunks[-1]:
            self._client.write(event(DONE))
        self._client.finish()
        self._settle(Result.DONE, usage=self._journal.usage())

    def _lose(self, reason: str) -> None:
        connection = self.connection
        self.on_lost(reason)
        if connection is not None:
            connection.abort()

    def _end_whole(self, body: bytes) -> None:
        if self._status in _TRY_ELSEWHERE:
            body = in_our_dialect(self._status, body)
            headers = _with_type(self._headers, JSON_TYPE)
            self._settle(Result.UNSENT, f"the engine answered {self._status}", headers=headers, body=body)
            return
        if self._status >= 400:
            body, self._headers = in_our_dialect(self._status, body), _with_type(self._headers, JSON_TYPE)
        elif self._split:
            body = reasoning.split_reply(body)
        self.first_byte_s = self._clock.time()
        self._client.respond(self._status, self._headers, body)
        self._settle(Result.DONE, usage=usage_of(body) or NO_USAGE)

    def _settle(
        self,
        result: Result,
        reason: str = "",
        *,
        headers: Headers = (),
        body: bytes = b"",
        usage: Usage = NO_USAGE,
    ) -> None:
        self.connection = None
        if not self._ending.done():
            ending = Ending(
                result=result, reason=reason, status=self._status, headers=headers, body=body, usage=usage
            )
            self._ending.set_result(ending)


def _with_type(headers: Headers, content_type: bytes) -> Headers:
    return (*(header for header in headers if header[0] != b"content-type"), (b"content-type", content_type))
