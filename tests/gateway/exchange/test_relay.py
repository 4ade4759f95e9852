"""A relay passes what looks usual without looking closer: it must not matter how the bytes were cut."""

import asyncio
import gzip
import os
from collections.abc import Sequence
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.exchange.delivery import Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.gateway.wire.sse import UNUSUAL, usual_frame, whole_events


def token(text: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{finish}}}'
    return f'data: {{"id":"a","choices":[{choice}]}}'.encode()


USUAL = (token("x"), token("y"), token("[DONE]"), token('\\"error\\": {'), token("}"))
TELLING = (
    b'data: {"error": {"message": "EngineCore", "code": 500}}',
    b'event: error\ndata: {"error": {"message": "x"}}',
    b"data: \xff\xfe\x00 not json",
    b'data: {"id":"a","choices":[',
    b"data: [DONE]",
    b": ping",
    b"data:",
    token("z", '"stop"'),
    token("z", '"abort"'),
    b'data: {"id":"a","object":"error","message":"EngineCore"}',
)
DONE = TELLING[4]
CHAT = Expected(path="/v1/chat/completions", ends_with_done=True, field="choices")


def up_to_done(events: list[bytes]) -> list[bytes]:
    """No engine goes on after it."""
    return events[: events.index(DONE) + 1] if DONE in events else events


EVENTS = st.lists(st.one_of(st.sampled_from(USUAL), st.sampled_from(USUAL + TELLING)), max_size=12).map(
    up_to_done
)


class Client:
    """Keeps what it was sent."""

    def __init__(self) -> None:
        self.head: tuple[int, Headers] = (0, ())
        self.got = b""
        self.ended = self.answering = self.paused = False
        self.refusal: Refusal | None = None

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        self.refusal = refusal

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.head = status, headers
        self.got += body

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        self.head = status, headers
        self.got += first

    def write(self, data: bytes) -> None:
        assert ENCODED in self.head[1] or whole_events(data) == len(data)
        self.got += data

    def finish(self) -> None:
        self.ended = True


class Clock:
    def time(self) -> float:
        return 1.0


EVENT_STREAM = ((b"content-type", b"text/event-stream"), (b"transfer-encoding", b"chunked"))
JSON = ((b"content-type", b"application/json; charset=utf-8"),)


def relayed(
    pieces: Sequence[bytes], headers: Headers = EVENT_STREAM, *, finish_needed: bool = True
) -> tuple[bytes, bool, str, str, list[bytes]]:
    """What the client got, whether it was all, how the attempt ended and why, and the journal."""
    loop = asyncio.new_event_loop()
    try:
        ending: asyncio.Future[Ending] = loop.create_future()
        client = Client()
        delivery = Delivery(client, Clock(), expected=CHAT)
        relay = Relay(delivery, Clock(), ending, finish_needed=finish_needed)
        relay.on_head(200, headers)
        for piece in pieces:
            if not ending.done():
                relay.on_body(piece)
        if not ending.done():
            relay.on_end()
        how = ending.result()
        return client.got, client.ended, how.result.value, how.reason, [b"".join(delivery.journal.chunks)]
    finally:
        loop.close()


@given(EVENTS, st.data())
def test_one_byte_at_a_time_and_at_any_cut_it_is_the_same(events: list[bytes], data: st.DataObject) -> None:
    text = b"".join(event + b"\n\n" for event in events)
    by_event = relayed([event + b"\n\n" for event in events])
    by_byte = relayed([bytes((byte,)) for byte in text])
    assert by_event == by_byte
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if b > a]
    assert relayed(pieces) == by_byte


@given(EVENTS, st.data())
def test_whatever_was_cut_off_the_client_has_whole_events_of_what_came(
    events: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(event + b"\n\n" for event in events)
    cut = data.draw(st.integers(0, len(text)))
    got = relayed([event + b"\n\n" for event in events])[0]
    assert got.startswith(relayed([text[:cut]] if cut else [])[0].removesuffix(b"data: [DONE]\n\n"))


TEXT_LAST = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"x"}}],"id":"a"}\n\n'


@pytest.mark.parametrize("usual", [token("x") + b"\n\n", TEXT_LAST])
def test_what_is_usual_is_one_event_that_ends_nothing_and_tells_nothing(usual: bytes) -> None:
    frame = usual_frame(usual)
    assert frame is not None
    for text in (b"y", b"long " * 9, b'\\"finish_reason\\":\\"stop\\"'):
        other = usual.replace(b'"x"', b'"%b"' % text)
        assert other.startswith(frame[0])
        assert other.endswith(frame[1])
    for end in (b'"stop"', b'"abort"'):
        other = usual.replace(b"null", end)
        assert not (other.startswith(frame[0]) and other.endswith(frame[1]))


def test_what_tells_a_tale_is_not_usual() -> None:
    for telling in (*TELLING, token("x") + b"\n\n" + token("y")):
        assert usual_frame(telling + b"\n\n") is None, telling
    assert not b"data: {".startswith(UNUSUAL[0])


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize("text", ["", "half"])
def test_an_answer_that_the_engine_gives_up_is_lost_and_not_shown_as_ended(reason: str, text: str) -> None:
    given_up = token(text, f'"{reason}"') + b"\n\n" + DONE + b"\n\n"
    got, ended, how, why, _ = relayed([token("x") + b"\n\n", token("y") + b"\n\n" + given_up])
    assert (got, ended, how) == (token("x") + b"\n\n" + token("y") + b"\n\n", False, "lost")
    assert reason in why


def test_done_comes_once_and_last() -> None:
    stop, done = token("z", '"stop"') + b"\n\n", DONE + b"\n\n"
    after = (done, token("after") + b"\n\n", TELLING[0] + b"\n\n")
    for pieces in ([stop, done, *after], [stop + done + b"".join(after)]):
        got, ended, how, *_ = relayed([token("x") + b"\n\n", *pieces])
        assert (got, ended, how) == (token("x") + b"\n\n" + stop + done, True, "done")


def test_a_server_that_gives_no_finish_reasons_ends_with_done_and_not_without() -> None:
    words = b'data: {"choices":[{"index":0,"delta":{"content":"all"}}]}\n\n'
    assert relayed([words, DONE + b"\n\n"], finish_needed=False)[1:3] == (True, "done")
    assert relayed([words, DONE + b"\n\n"])[1:3] == (False, "lost")
    assert relayed([words], finish_needed=False)[1:3] == (False, "lost")


def test_an_event_without_data_says_nothing() -> None:
    stop = token("z", '"stop"') + b"\n\n"
    for empty in (b"data:\n\n", b"data: \n\n", b"event: ping\ndata:\n\n"):
        got, ended, how, *_ = relayed([token("x") + b"\n\n", empty, stop + DONE + b"\n\n"])
        assert (ended, how) == (True, "done")
        assert got.endswith(empty + stop + DONE + b"\n\n")


def test_a_media_type_is_the_same_in_capitals() -> None:
    events = token("x") + b"\n\n" + token("z", '"stop"') + b"\n\n"
    got, ended, how, *_ = relayed([events], ((b"content-type", b"Text/Event-Stream"),))
    assert (got, ended, how) == (events + DONE + b"\n\n", True, "done")


def test_an_answer_whose_end_is_that_of_the_connection_has_to_be_whole() -> None:
    assert relayed([b'{"choices":[]}'], JSON)[0] == b'{"choices":[]}'
    got, _, how, reason, _ = relayed([b'{"choices":['], JSON)
    assert (got, how) == (b"", "lost")
    assert "middle" in reason


WHOLE = b'{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b'{"choices":[',
        b"[]",
        b"{}",
        b'{"error":{"message":"boom"}}',
        b'{"object":"error","message":"boom"}',
        WHOLE.replace(b"stop", b"abort"),
        WHOLE.replace(b"stop", b"error"),
    ],
)
def test_a_reply_of_200_that_is_no_answer_is_a_failure_of_its_address(body: bytes) -> None:
    framed = (*JSON, (b"content-length", b"%d" % len(body)))
    got, _, how, reason, _ = relayed([body] if body else [], framed)
    assert (got, how) == (b"", "refused")
    assert reason
    assert relayed([WHOLE], framed)[0] == WHOLE


ENCODED = (b"content-encoding", b"gzip")
SIZES = (10, 3 << 20)  # collected, and passed on as it comes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("headers", [EVENT_STREAM, JSON], ids=["stream", "whole"])
@pytest.mark.parametrize("status", [200, 400, 503])
def test_an_encoding_that_nobody_asked_for_is_told_with_the_bytes_and_errors_in_our_words(
    status: int, headers: Headers, size: int
) -> None:
    body, client = gzip.compress(os.urandom(size)), Client()
    with closing(asyncio.new_event_loop()) as loop:
        ending: asyncio.Future[Ending] = loop.create_future()
        delivery = Delivery(client, Clock(), expected=CHAT, split_reasoning=size < 100)
        relay = Relay(delivery, Clock(), ending)
        relay.on_head(status, (*headers, ENCODED))
        for start in range(0, len(body), 1 << 18):
            relay.on_body(body[start : start + (1 << 18)])
        relay.on_end()
        how = ending.result()
    refusal = how.refusal or client.refusal
    if status == 200:
        assert (client.head[0], client.got) == (status, body)
        assert {ENCODED, headers[0]} <= set(client.head[1])
    else:
        assert refusal is not None
        assert (refusal.status, client.got) == (status, b"")
    assert (how.result is Result.REFUSED) == (status == 503)


CALLING = Expected(path="/v1/chat/completions", ends_with_done=True, field="choices", tool_call=True)
CALLED = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}'


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        ([token("words"), token("", '"stop"'), DONE], True),
        ([CALLED, token("", '"tool_calls"'), DONE], False),
        ([token("words"), token("", '"length"'), DONE], False),
    ],
)
def test_a_tool_call_that_was_asked_for_comes_or_is_missed_in_words(
    events: list[bytes], refused: bool
) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        for stream in (True, False):
            ending: asyncio.Future[Ending] = loop.create_future()
            client = Client()
            relay = Relay(Delivery(client, Clock(), expected=CALLING), Clock(), ending)
            relay.on_head(200, EVENT_STREAM if stream else JSON)
            if stream:
                for event in events:
                    relay.on_body(event + b"\n\n")
            else:  # the same in one piece
                choices = b'{"choices":[%b]}' % b",".join(e.partition(b"[")[2][:-2] for e in events[:-1])
                relay.on_body(choices)
            relay.on_end()
            assert ending.result().result is Result.DONE
            assert (client.refusal is not None) == refused
            assert (DONE in client.got) == (stream and not refused)


class FailingReply:
    """A reply of 422 that repeats all it was asked, on a connection that somebody may let go."""

    def __init__(self) -> None:
        self.dropped = False

    def drop(self, reply: object) -> None:
        self.dropped = True


@pytest.mark.parametrize("size_mb", [1, 20])
def test_a_complaint_that_repeats_the_request_is_told_without_reading_it_all(size_mb: int) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        ending: asyncio.Future[Ending] = loop.create_future()
        client, connection = Client(), FailingReply()
        relay = Relay(Delivery(client, Clock(), expected=CHAT), Clock(), ending)
        relay.connection = connection  # type: ignore[assignment]
        relay.on_head(422, JSON)
        said = b'{"error":{"message":"temperature must be less","input":"' + b"A" * (size_mb << 20) + b'"}}'
        for at in range(0, len(said), 1 << 16):
            if not ending.done():
                relay.on_body(said[at : at + (1 << 16)])
        assert ending.result().result is Result.DONE
        assert client.refusal is not None
        assert client.refusal.status == 422
        assert "temperature must be less" in client.refusal.message
        assert connection.dropped
