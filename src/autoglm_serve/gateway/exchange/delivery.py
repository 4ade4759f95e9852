"""What one client is being sent, over all the replicas that take part in it.

Owns the journal and the client's side of the stream: its head is sent once, its events are noted before they
go out, its end is told once. Attempts (`relay`) come and go; this stays.
"""

from collections.abc import Callable
from typing import Protocol

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.exchange.reasoning import StreamSplitter
from autoglm_serve.gateway.exchange.response_events import ResponseFiller
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.recovery.journal import NO_USAGE, Journal, before_done, next_number
from autoglm_serve.gateway.wire.envelope import last_event
from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.gateway.wire.sse import DONE, event

SILENCE_S = 9.0
"""Proxies give up after 60 s as they come, some after 30, and impatient clients after 10."""
COMMENT = b": waiting\n\n"
STREAM_TYPE = b"text/event-stream"
_UNBUFFERED: Headers = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""For proxies: pass each event on as it comes. nginx keeps all of a stream to its end otherwise."""


class Client(Protocol):
    """The side of the client's connection that is written to."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None: ...

    def start(self, status: int, headers: Headers, first: bytes) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None: ...

    @property
    def answering(self) -> bool:
        """It has part of an answer."""
        ...

    @property
    def paused(self) -> bool:
        """It takes no more for now."""
        ...


class Caller(Client, Protocol):
    """A client from its request's first byte to its answer's last."""

    on_pause: Callable[[], None] | None
    on_resume: Callable[[], None] | None

    def abort(self) -> None: ...


class LoopTime(Protocol):
    """The event loop, as far as time goes."""

    def time(self) -> float: ...


class Delivery:
    """One answer on its way to one client."""

    def __init__(
        self,
        client: Client,
        clock: LoopTime,
        *,
        expected: Expected,
        split_reasoning: bool = False,
        filler: ResponseFiller | None = None,
    ) -> None:
        self._client = client
        self.write = client.write
        """To the client, past everything; for who keeps the journal itself, where events pass unchanged."""
        self._clock = clock
        self._rewrite = StreamSplitter() if split_reasoning else filler
        self._filler = filler
        self.expected = expected
        self._head: tuple[int, Headers] = (200, ())
        self.split_reasoning = split_reasoning
        self.journal = Journal(expected.choices)
        self.started = False
        """The client has seen the head."""
        self._passed = False
        self._seen_chunks = 0
        self._spoke_s = clock.time()
        """When it was last seen that something went out."""
        self.first_byte_s: float | None = None
        """When it was sent its first content, on the clock."""
        self.on_first: Callable[[], None] = _nobody_waits
        """Told of that."""

    @property
    def begun(self) -> bool:
        """Part of an answer has been taken from a replica: asking anew would say it twice."""
        return self._passed or bool(self.journal.chunks)

    @property
    def complete(self) -> bool:
        """The client has all that it asked for, if it is told that this is the end."""
        if not self.journal.finished:
            return False
        return not self.expected.usage or self.journal.usage() != NO_USAGE

    @property
    def passes_at_once(self) -> bool:
        """Events go out as they came in and need no look; the first, with the head, has."""
        return self.started and self._rewrite is None and self.journal.choices == 1

    def head(self, status: int, headers: Headers, *, is_stream: bool = False) -> None:
        """The head to start with, once there is something to send."""
        if not self.started:
            self._head = (status, headers + _unbuffered(headers) if is_stream else headers)

    def events(self, events: bytes) -> None:
        """Whole SSE events, as the engine wrote them."""
        self.journal.chunks.append(events)
        if self._rewrite is not None:
            events = self._rewrite.feed(events)
        if events:
            self.data(events)

    def data(self, data: bytes) -> None:
        """Bytes as they are."""
        self._passed = True
        self._first()
        if self.started:
            self._client.write(data)
            return
        self.started = True
        self._client.start(*self._head, data)

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """An answer in one piece."""
        self._first()
        self._client.respond(status, headers, body)

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        """An error, as an envelope or as the end of what the client is being sent."""
        self._first()
        give_up(self._client, self.expected.path, refusal, headers, number=self._next_number)

    @property
    def _next_number(self) -> int:
        """Of an event of a response, by those that the client has."""
        said = next_number(self.journal.chunks) if self._filler is not None else 0
        return max(said, self._filler.number) if self._filler is not None else 0

    def sign_of_life(self, now_s: float) -> None:
        """A comment for whoever stands between and thinks that what is silent is dead.

        Before the first event the head goes out with it: from then on an error is told as an event. Looked
        at now and then; what a stream itself brings is seen by its journal growing.
        """
        chunks = len(self.journal.chunks)
        if chunks != self._seen_chunks:
            self._seen_chunks, self._spoke_s = chunks, now_s
        elif now_s - self._spoke_s >= SILENCE_S and not self._client.paused:
            self._spoke_s = now_s
            self._comment()

    def _comment(self) -> None:
        if self.started:
            self._client.write(COMMENT)
        else:
            self.started = True
            self._client.start(200, ((b"content-type", STREAM_TYPE), *_UNBUFFERED), COMMENT)

    def _first(self) -> None:
        if self.first_byte_s is None:
            self.first_byte_s = self._clock.time()
            self.on_first()

    def finish(self) -> None:
        """The end of a stream; `[DONE]` is added where an engine died between the two."""
        chunks = self.journal.chunks
        if chunks and self.expected.ends_with_done and not before_done(chunks[-1])[1]:
            self.data(event(DONE))
        self._client.finish()


def give_up(client: Client, path: str, refusal: Refusal, headers: Headers = (), *, number: int = 0) -> None:
    """The last word to a client: an envelope, or the end of what it was being sent."""
    if client.answering:
        client.write(last_event(path, refusal, number))
        client.finish()
    else:
        client.refuse(refusal, headers)


def _unbuffered(headers: Headers) -> Headers:
    said = dict(headers)
    return tuple([header for header in _UNBUFFERED if header[0] not in said])


def _nobody_waits() -> None:
    """For the first byte."""
