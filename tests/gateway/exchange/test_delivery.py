"""A stream shows that it is alive while nothing comes, and an error finds its form whatever has gone out."""

import orjson

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.exchange.delivery import COMMENT, SILENCE_S, Delivery
from autoglm_serve.gateway.exchange.life_signs import LifeSigns
from autoglm_serve.gateway.exchange.response_events import ResponseFiller
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.wire.http import Headers

PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
STREAM: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"private"))


class Client:
    """Keeps what it was sent (`delivery.Client`)."""

    def __init__(self) -> None:
        self.head: tuple[int, Headers] | None = None
        self.got = b""
        self.answering = self.paused = False
        self.refusal: Refusal | None = None

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        assert not self.answering
        self.head, self.got = (status, headers), body

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        assert not self.answering
        self.answering, self.head, self.got = True, (status, headers), first

    def write(self, data: bytes) -> None:
        assert self.answering
        self.got += data

    def finish(self) -> None:
        self.answering = False

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        assert not self.answering
        self.refusal = refusal


class Clock:
    now_s = 100.0

    def time(self) -> float:
        return self.now_s


def stream(path: str = "/v1/chat/completions") -> tuple[Delivery, Client, Clock, LifeSigns]:
    client, clock, signs = Client(), Clock(), LifeSigns()
    expected = Expected(path=path, ends_with_done=path.endswith("completions"), typed_events=True)
    filler = ResponseFiller(model="demo", created_s=1) if path == "/v1/responses" else None
    delivery = Delivery(client, clock, expected=expected, filler=filler)
    signs.enter(delivery)
    return delivery, client, clock, signs


def pass_time(clock: Clock, signs: LifeSigns, seconds: float) -> None:
    for _ in range(int(seconds)):
        clock.now_s += 1.0
        signs.sweep(clock.now_s)


def test_while_it_waits_the_head_goes_out_and_then_a_comment_within_every_ten_seconds() -> None:
    delivery, client, clock, signs = stream()
    pass_time(clock, signs, SILENCE_S - 1)
    assert client.head is None
    pass_time(clock, signs, 1)
    assert client.head is not None
    assert client.head[0] == 200
    assert {(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")} <= set(client.head[1])
    pass_time(clock, signs, 61)
    assert client.got == COMMENT * (1 + int(61 // SILENCE_S))
    assert (
        not delivery.begun
    )  # a request whose replica dies now is asked elsewhere, as if nothing had gone out
    delivery.events(PIECE)
    assert client.got.endswith(COMMENT + PIECE)
    assert delivery.begun


def test_what_says_something_by_itself_needs_no_sign() -> None:
    delivery, client, clock, signs = stream()
    delivery.events(PIECE)
    for _ in range(20):
        pass_time(clock, signs, SILENCE_S - 1)
        delivery.journal.chunks.append(PIECE)  # as a relay does, past everything
        delivery.write(PIECE)
    assert COMMENT not in client.got
    pass_time(clock, signs, SILENCE_S + 1)
    assert client.got.endswith(PIECE + COMMENT)


def test_a_client_that_does_not_read_is_sent_no_signs() -> None:
    delivery, client, clock, signs = stream()
    delivery.events(PIECE)
    client.paused = True
    pass_time(clock, signs, 100)
    assert client.got == PIECE


def test_what_is_over_is_left_alone() -> None:
    delivery, client, clock, signs = stream()
    signs.leave(delivery)
    pass_time(clock, signs, 100)
    assert client.head is None


def test_an_error_after_a_sign_of_life_is_told_as_an_event_in_the_form_of_its_api() -> None:
    refusal = Refusal(400, "context_length_exceeded", "Too long.", param="messages")
    for path, marks in (
        ("/v1/chat/completions", (b'"code":"context_length_exceeded"', b"data: [DONE]\n\n")),
        ("/v1/messages", (b"event: error\n", b'"type":"invalid_request_error"')),
        ("/v1/responses", (b"event: error\n", b'"sequence_number":0')),
    ):
        delivery, client, clock, signs = stream(path)
        pass_time(clock, signs, SILENCE_S)
        delivery.refuse(refusal)
        assert client.refusal is None
        assert client.got.startswith(COMMENT)
        assert all(mark in client.got for mark in marks)
        assert not client.answering


def test_an_error_before_anything_went_out_is_an_envelope() -> None:
    delivery, client, _, _ = stream()
    refusal = Refusal(400, "x", "y")
    delivery.refuse(refusal)
    assert (client.refusal, client.got) == (refusal, b"")


def test_the_number_of_an_error_follows_those_that_were_sent() -> None:
    response = b'{"model":"x","created_at":1,"output":[]}'
    complete = b'event: a\ndata: {"type":"a","sequence_number":4,"response":%b}\n\n' % response
    for event, number in ((complete, 5), (b'event: a\ndata: {"type":"a"}\n\n', 1)):
        delivery, client, _, _ = stream("/v1/responses")
        delivery.head(200, STREAM, is_stream=True)
        delivery.events(event)
        delivery.refuse(Refusal(503, "replica_lost", "gone"))
        error = orjson.loads(client.got.rpartition(b"data: ")[2])
        assert error["sequence_number"] == number


def test_a_proxy_is_told_not_to_hold_a_stream_back_and_the_engines_own_word_is_kept() -> None:
    delivery, client, _, _ = stream()
    delivery.head(200, STREAM, is_stream=True)
    delivery.events(PIECE)
    assert client.head is not None
    assert client.head[1] == (*STREAM, (b"x-accel-buffering", b"no"))
