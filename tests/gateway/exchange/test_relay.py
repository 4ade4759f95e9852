"""A relay passes what looks usual without looking closer: it must not matter how the bytes were cut."""

import asyncio
import gzip
import os
from collections.abc import Sequence
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.exchange.delivery import Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.gateway.wire.sse import UNUSUAL, usual_beginning, whole_events


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
)
DONE = TELLING[4]


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
        self.ended = False

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
    pieces: Sequence[bytes], headers: Headers = EVENT_STREAM
) -> tuple[bytes, bool, str, str, list[bytes]]:
    """What the client got, whether it was all, how the attempt ended and why, and the journal."""
    loop = asyncio.new_event_loop()
    try:
        ending: asyncio.Future[Ending] = loop.create_future()
        client = Client()
        delivery = Delivery(client, Clock())
        relay = Relay(delivery, Clock(), ending=ending)
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


def test_what_is_usual_is_one_event_with_one_object_and_no_error() -> None:
    assert token("x").startswith(usual_beginning(token("x") + b"\n\n"))
    for telling in (*TELLING[:2], *TELLING[3:6], token("x") + b"\n\n" + token("y")):
        assert usual_beginning(telling + b"\n\n") == b"", telling
    assert not b"data: {".startswith(UNUSUAL)


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
    framed = (*JSON, (b"content-length", b"12"))
    assert relayed([b'{"choices":['], framed)[0] == b'{"choices":['  # it says that this is all


ENCODED = (b"content-encoding", b"gzip")
SIZES = (10, 3 << 20)  # collected, and passed on as it comes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("headers", [EVENT_STREAM, JSON], ids=["stream", "whole"])
@pytest.mark.parametrize("status", [200, 400, 503])
def test_an_encoding_that_nobody_asked_for_is_told_with_the_bytes(
    status: int, headers: Headers, size: int
) -> None:
    body, client = gzip.compress(os.urandom(size)), Client()
    with closing(asyncio.new_event_loop()) as loop:
        ending: asyncio.Future[Ending] = loop.create_future()
        relay = Relay(Delivery(client, Clock(), split_reasoning=size < 100), Clock(), ending=ending)
        relay.on_head(status, (*headers, ENCODED))
        for start in range(0, len(body), 1 << 18):
            relay.on_body(body[start : start + (1 << 18)])
        relay.on_end()
        how = ending.result()
    told = (how.status, how.headers, how.body) if how.result is Result.REFUSED else (*client.head, client.got)
    assert (told[0], told[2]) == (status, body)
    assert {ENCODED, headers[0]} <= set(told[1])
