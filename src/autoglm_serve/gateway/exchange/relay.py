"""One attempt: the reply of one replica on its way into a delivery.

Callbacks, not tasks: a chunk goes from socket to socket in one call. A stream passes as it comes, whole
events only. An event that looks as those before it did is not looked at any further, nor is the clock: that
a stream gets on is seen by its journal growing, whenever the watch looks. Anything else is collected and sent
in one piece, so that a replica lost in the middle of it can still be replaced; what grows beyond
`_COLLECT_BYTES` passes as it comes. Nothing is looked at again when more of it comes, so that what is long
costs no more than what is many.
"""

import asyncio
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.exchange import reasoning
from autoglm_serve.gateway.exchange.complaint import complaint, no_answer, no_call
from autoglm_serve.gateway.exchange.delivery import STREAM_TYPE, Delivery, LoopTime
from autoglm_serve.gateway.exchange.question import Question
from autoglm_serve.gateway.exchange.stream_times import StreamTimes
from autoglm_serve.gateway.recovery.answer import (
    TURNED_AWAY,
    Failure,
    before_failure,
    failure_of_whole,
    is_failed,
    lacks_call,
    says_how_it_ended,
)
from autoglm_serve.gateway.recovery.journal import (
    NO_USAGE,
    Usage,
    before_done,
    before_garbage,
    is_believable,
    is_json,
    usage_in,
)
from autoglm_serve.gateway.recovery.seam import Diverged
from autoglm_serve.gateway.wire.envelope import JSON_TYPE
from autoglm_serve.gateway.wire.event_parts import EventParts
from autoglm_serve.gateway.wire.http import Headers, ends_with_connection
from autoglm_serve.gateway.wire.sse import DONE, UNUSUAL, event, usual_frame
from autoglm_serve.gateway.wire.upstream import Connection

_COLLECT_BYTES = 1 << 20
_MOST_COMPLAINT_BYTES = 64 * 1024  # of a reply that says why it is none; some repeat all that they were asked
_MOST_EVENT_BYTES = 16 << 20
_NEWLINE = b"\n"[0]
_PASSED_ON = frozenset(
    {b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"content-disposition"}
)
_FAILURES = 400
"""The statuses from here on have a body that says what is wrong."""
_ANY = Question(body=b"")
"""For whom nobody waits on terms of his own."""
NOTHING: Mapping[str, object] = MappingProxyType({})
_ANSWERS = frozenset({500, 501})
"""Statuses of an engine that is well and says no to a request; others say that it cannot serve now."""


class Result(Enum):
    """How an attempt ended."""

    DONE = "done"  # the client has the whole reply
    REFUSED = "refused"  # the replica answered that it cannot
    LOST = "lost"  # the connection broke, could not be made, or fell silent
    DIVERGED = "diverged"  # a replay said something else than was sent


class Ending(NamedTuple):
    """The end of one attempt, and what is known of the reply."""

    result: Result
    reason: str = ""
    status: int = 0
    """The replica's status; 0 where none came."""
    refusal: Refusal | None = None
    """What is to be told of an error reply, which was held back in case another replica does better."""
    headers: Headers = ()
    """Of ours, to tell it with."""
    usage: Usage = NO_USAGE
    asked: bool = False
    """The request had been sent: an engine may have died of it."""
    given_up: bool = False
    """Not the connection broke: somebody here gave the replica up."""
    leaving: bool = False
    """The replica said that it is going down."""
    refused: bool = False
    """Nobody took the connection."""
    finish_seen: bool = False
    """Its answer said how it ended, so a later one that does not is cut off."""
    events: int = 0
    """Pieces of the stream that this attempt brought."""

    @property
    def turned_away(self) -> bool:
        """The replica is well and has no room."""
        return self.result is Result.REFUSED and self.status == TURNED_AWAY

    @property
    def answered(self) -> bool:
        """The replica is well, and this is its answer: it is no word on whether it can serve."""
        return self.result is Result.DIVERGED or (self.result is Result.REFUSED and self.status in _ANSWERS)

    @property
    def health(self) -> bool | None:
        """What it says of the replica: well or not; nothing, where the request may be the matter."""
        if self.result is Result.DONE:
            return True
        if self.answered or (self.result is Result.REFUSED and 400 <= self.status < 500):
            return None
        return False


class Relay:
    """Takes an upstream's reply (`upstream.Reply`) and hands it to the delivery."""

    _held: EventParts
    """Of a stream: an event of which the end has not come."""

    def __init__(
        self,
        delivery: Delivery,
        clock: LoopTime,
        ending: "asyncio.Future[Ending]",
        question: Question = _ANY,
        *,
        extra: Headers = (),
        finish_needed: bool = True,
    ) -> None:
        """The client gets `extra` headers. Where it is not known that the replica gives finish reasons, none
        is needed."""
        self._delivery = delivery
        self._clock = clock
        self.ending = ending
        self._extra = extra
        self.question = question
        self._status = 0
        self._headers: Headers = ()
        self._encoded = False
        """In a way that nobody asked for (gzip): it is not looked into, and its header goes with it."""
        self._streaming = False
        self._may_be_cut = False
        """It ends with the connection, which a death ends too."""
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self._passing = False
        self.whole_s: float | None = None
        """How long the answer in one piece took."""
        self._finish_needed = finish_needed
        self._over = self._leaving = self._finish_seen = False
        self._begins, self._ends = UNUSUAL
        """How its events begin and end, once they need not be looked at. What tells a tale does otherwise."""
        self._write = delivery.write
        self._chunks = delivery.journal.chunks
        self._not_events = len(self._chunks)
        """Chunks of the journal that are none of its events: what others sent, and comments."""
        self._innocent = self._given_up = False
        self._times = StreamTimes(clock.time())
        self.connection: Connection | None = None

    # upstream.Reply

    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = (*[header for header in headers if header[0] in _PASSED_ON], *self._extra)
        said = dict(headers)
        content_type = said.get(b"content-type", b"").lower()
        self._encoded = said.get(b"content-encoding", b"identity").lower() != b"identity"
        readable = status == 200 and not self._encoded
        is_stream = content_type.startswith(STREAM_TYPE)
        self._streaming = readable and is_stream
        if self._streaming:
            self._held = EventParts()
        self._may_be_cut = readable and content_type.startswith(JSON_TYPE) and ends_with_connection(said)
        self._delivery.head(status, self._headers, is_stream=is_stream)

    def on_body(self, data: bytes) -> None:
        # Nearly always it is one whole event like those before it. What is done here is the cost of a stream.
        if (
            data.startswith(self._begins)
            and data.endswith(self._ends)
            and data.find(_NEWLINE) == len(data) - 2
        ):
            self._chunks.append(data)
            self._write(data)
        elif self._streaming:
            self._pass_events(data)
        elif self._passing:
            self._collected_bytes += len(data)
            self._delivery.data(data)
        else:
            self._collect(data)

    def on_end(self) -> None:
        if self._streaming:
            self._end_stream()
        elif self._passing:
            self._delivery.finish()
            self._settle(Result.DONE)
        else:
            self._end_whole(b"".join(self._collected))

    def on_lost(self, reason: str) -> None:
        if self._streaming and self._delivery.complete:
            self._finish_stream()
        else:
            self._settle(Result.LOST, reason)

    # the client's side

    def pause(self) -> None:
        """The client is slow: stop reading from the replica."""
        self._times.pause(self._clock.time())
        if self.connection is not None:
            self.connection.pause(self)

    def resume(self) -> None:
        self._times.resume(self._clock.time())
        if self.connection is not None:
            self.connection.resume(self)

    @property
    def events(self) -> int:
        """Pieces of the stream that this attempt has brought."""
        return len(self._chunks) - self._not_events

    @property
    def signs(self) -> int:
        """A number that grows with all that this attempt brings."""
        return self.events + self._collected_bytes

    def silent_s(self, now_s: float) -> float:
        """How long the stream had brought nothing when it was looked at, which is now; before its first
        event, and while it is paused, 0."""
        self._times.look(self.events, now_s)
        return self._times.silent_s(now_s)

    @property
    def interval_s(self) -> float | None:
        """The usual time between two of its events; None if they were too few to tell."""
        return self._times.interval_s

    def waiting_s(self, now_s: float) -> float:
        """How long its first event is being waited for; 0 once it has come."""
        return 0.0 if self.events else self._times.waiting_s(now_s)

    @property
    def prefill_s(self) -> float | None:
        """How long its first event took; None if there was none."""
        return self._times.prefill_s

    def lose(self, reason: str, *, innocent: bool = False) -> None:
        """The replica is given up: by its words, its silence, or somebody who knows.

        `innocent` where it is certain that the request has no part in it.
        """
        connection = self.connection
        self._innocent = innocent
        self._given_up = True
        self.on_lost(reason)
        if connection is not None:
            connection.drop(self)

    def abandon(self) -> None:
        """Nobody waits any more: drop the connection, unless the reply had ended."""
        if not self.ending.done():
            self.ending.cancel()
        if self.connection is not None:
            self.connection.drop(self)
            self.connection = None

    # how

    def _collect(self, data: bytes) -> None:
        self._collected.append(data)
        self._collected_bytes += len(data)
        if self._status >= 300:
            if self._collected_bytes > _MOST_COMPLAINT_BYTES:
                self._end_early()
        elif self._collected_bytes <= _COLLECT_BYTES:
            pass
        elif self._status == 200 and not (self._delivery.begun or self._delivery.started):
            self._passing = True
            self._delivery.data(b"".join(self._collected))
            self._collected.clear()
        else:
            self.lose(f"its reply in one piece is longer than {_COLLECT_BYTES >> 20} MiB")

    def _end_early(self) -> None:
        """What it complains of is said: the rest is not read."""
        connection = self.connection
        self._end_whole(b"".join(self._collected)[:_MOST_COMPLAINT_BYTES])
        if connection is not None:
            connection.drop(self)

    def _pass_events(self, data: bytes) -> None:
        if self._over:
            return
        events = self._held.whole(data)
        if self._held:
            self._begins, self._ends = UNUSUAL
            if len(self._held) > _MOST_EVENT_BYTES:
                self.lose(f"one of its events is longer than {_MOST_EVENT_BYTES >> 20} MiB")
                return
        if events:
            self._send_events(events)

    def _send_events(self, events: bytes) -> None:
        events, broken = self._believable(events)
        arrived = b"data:" in events  # a comment says that the server lives, not that the engine does
        splicer = self.question.splicer
        if splicer is not None and events:
            try:
                events = splicer.feed(events)
            except Diverged as diverged:
                self._give_up(Result.DIVERGED, str(diverged))
                return
        if events:
            self._delivery.events(events)
            self._delivery.journal.look()
        self._note(events, arrived=arrived)
        if broken is not None:  # the client is not shown it: what comes next is the dispatcher's decision
            self._leaving = broken.leaving
            self.lose(broken.reason, innocent=broken.leaving)

    def _believable(self, events: bytes) -> tuple[bytes, Failure | None]:
        """`events` up to the first that shows that the engine is done for, and what that is."""
        expected = self._delivery.expected
        events, broken = before_failure(events)
        if expected.ends_with_done or expected.typed_events:
            events, garbage = before_garbage(events)
            if garbage:
                broken = Failure(reason="the engine sent an event that is no JSON")
        if not expected.ends_with_done:
            return events, broken
        before, done = before_done(events)
        if not done:
            return events, broken
        self._finish_seen = self._delivery.journal.would_be_finished(before)
        if self._finish_needed and not self._finish_seen:
            return before, Failure(reason="the stream ended without a finish reason")
        self._over = True  # whatever follows is no part of an answer
        if lacks_call([*self._chunks, before], expected):
            return before, None
        return before + event(DONE), None

    def _note(self, sent: bytes, *, arrived: bool) -> None:
        """What was looked at says when the stream began, and how its events look.

        What arrived and was not sent, because the client has it already, is a sign of life as well.
        """
        self._not_events += bool(sent) - arrived
        if arrived:
            self._times.first(self._clock.time())
        if self._over:
            self._begins, self._ends = UNUSUAL
        elif self.question.splicer is None and not self._held and self._delivery.passes_at_once:
            self._begins, self._ends = usual_frame(sent) or (self._begins, self._ends)

    def _end_stream(self) -> None:
        if not self._over:
            rest = self._held.take().rstrip(b"\r\n") + b"\n\n"
            if is_believable(rest):  # the last event with one line break, or none
                self._send_events(rest)
        if self.ending.done():
            return
        if self._over or self._delivery.complete:
            self._finish_stream()
        elif self._delivery.journal.finished:
            self._settle(Result.LOST, "the stream ended without its usage")
        elif self._delivery.begun:
            self._settle(Result.LOST, "the stream ended without a finish reason")
        else:
            self._settle(Result.LOST, "the stream ended before its first event")

    def _finish_stream(self) -> None:
        journal = self._delivery.journal
        if lacks_call(journal.chunks, self._delivery.expected):
            self._delivery.refuse(no_call())
        else:
            self._delivery.finish()
        self._settle(Result.DONE, usage=journal.usage(), finish_seen=self._finish_seen or journal.finished)

    def _give_up(self, result: Result, reason: str) -> None:
        connection = self.connection
        self._settle(result, reason)
        if connection is not None:
            connection.drop(self)

    def _end_whole(self, body: bytes) -> None:
        if self._encoded:
            self._end_unread(body)
        elif self._may_be_cut and not is_json(body):
            self._settle(Result.LOST, "connection closed in the middle of its answer")
        elif is_failed(self._status) or self._status >= _FAILURES:
            self._end_refused(body)
        else:
            self._end_answered(body)

    def _end_unread(self, body: bytes) -> None:
        """What cannot be looked into goes out as it is, unless it is an error."""
        if is_failed(self._status) or self._status >= _FAILURES:
            self._end_refused(b"")
        elif self._delivery.started or self._delivery.begun:
            self._refused("it answered in an encoding that nobody asked for")
        else:
            self._hand_over(body)

    def _end_refused(self, body: bytes) -> None:
        why, expected = f"the engine answered {self._status}", self._delivery.expected
        if self._status < _FAILURES:
            self._refused(why)
            return
        refusal = complaint(
            self._status,
            body,
            expected.path,
            retry_after_s=_retry_after_s(self._headers),
            picture=expected.picture,
        )
        if is_failed(self._status) or self._delivery.begun:
            self._refused(why, refusal)
        elif expected.path:
            self._delivery.refuse(refusal, self._extra)
            self._settle(Result.DONE)
        else:  # the control plane's words are ours
            self._hand_over(body)

    def _end_answered(self, body: bytes) -> None:
        failure, said = failure_of_whole(body, self._delivery.expected, finish_needed=self._finish_needed)
        if failure is not None:
            self._leaving = failure.leaving
            self._refused(failure.reason)
        elif self._delivery.started or self._delivery.begun:
            self._refused("it answered in one piece")
        elif lacks_call([body], self._delivery.expected):
            self._delivery.refuse(no_call(), self._extra)
            self._settle(Result.DONE)
        else:
            self._hand_over(reasoning.split_reply(body) if self._delivery.split_reasoning else body, said)

    def _hand_over(self, body: bytes, said: Mapping[str, object] = NOTHING) -> None:
        self._delivery.whole(self._status, self._headers, body)
        self._settle(Result.DONE, usage=usage_in(said), finish_seen=says_how_it_ended(said))

    def _refused(self, why: str, refusal: Refusal | None = None) -> None:
        self._settle(Result.REFUSED, why, refusal=refusal or no_answer(why))

    def _settle(
        self,
        result: Result,
        reason: str = "",
        *,
        refusal: Refusal | None = None,
        usage: Usage = NO_USAGE,
        finish_seen: bool = False,
    ) -> None:
        self.connection = None
        if not self.ending.done():
            if result is Result.DONE:
                now_s = self._clock.time()
                if self._streaming:
                    self.silent_s(now_s)  # the last look, for its pace
                if self.question.whole and self._status < _FAILURES:
                    self.whole_s = self._times.waiting_s(now_s)
            ending = Ending(
                result=result,
                reason=reason,
                status=self._status,
                refusal=refusal,
                headers=self._extra,
                usage=usage,
                asked=not self._innocent,
                given_up=self._given_up,
                leaving=self._leaving,
                finish_seen=finish_seen,
                events=self.events,
            )
            self.ending.set_result(ending)


def _retry_after_s(headers: Headers) -> int | None:
    """What an engine says, where it is a number of seconds."""
    value = dict(headers).get(b"retry-after", b"")
    return int(value) if value.isdigit() else None
