"""Streams: whole events only, one good ending or an honest one, and nobody works for a client that left."""

import json
import socket
import time

import psutil
import pytest

from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, running_gateway
from tests.gateway.raw_http import Wire, chat, post, wire

pytestmark = pytest.mark.process

ALL_TEXT = "tok0 tok1 tok2 tok3 "
LOST = b"The replica was lost in the middle of the stream, "


def stream(client: Wire, **fields: object) -> Wire:
    return client.send(post(chat(stream=True, **fields)))


def chunks_of(client: Wire) -> list[bytes]:
    """The chunks of a chunked answer, each as the gateway wrote it."""
    while client.line().strip():
        pass
    chunks = []
    while size := int(client.line(), 16):
        chunks.append(client.file.read(size))
        client.file.read(2)
    return chunks


@pytest.mark.parametrize("size", [*range(1, 40), 64, 100, 128, 200, 256])
def test_only_whole_events_pass_however_the_engines_writes_cut_them(
    gateway: GatewayProcess, size: int
) -> None:
    with wire(gateway) as client:
        chunks = chunks_of(stream(client, fault=f"split:{size}"))
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)
    assert b"".join(chunks).count(b"data: ") == 7
    assert b"".join(chunks).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("fault", ["crlf", "pings", "drip:0.0001"])
def test_every_way_to_write_events_gives_the_same_text(gateway: GatewayProcess, fault: str) -> None:
    with wire(gateway) as client:
        answer = stream(client, fault=fault).answer()
        assert answer.text == ALL_TEXT
        assert answer.body.count(b"[DONE]") == 1


@pytest.mark.parametrize("size", [100, 70_000, 1_000_000, 5_000_000])
def test_a_huge_event_passes_whole(gateway: GatewayProcess, size: int) -> None:
    with wire(gateway) as client:
        answer = stream(client, fault=f"huge_event:{size}").answer()
        assert answer.text == "x" * size + ALL_TEXT


def test_an_event_without_end_is_given_up(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        answer = stream(client, pieces=["a"], fault=f"huge_event:{17 << 20}").answer()
        assert LOST in answer.body


@pytest.mark.parametrize("fault", ["reset:2", "fin:2", "half:2", "error:2", "end:2", "done:2", "garbage:2"])
def test_a_broken_stream_ends_with_an_error_and_not_as_if_all_were_well(
    gateway: GatewayProcess, fault: str
) -> None:
    with wire(gateway) as client:
        answer = stream(client, fault=fault).answer()
        assert answer.text.startswith("tok0 tok1 ")
        assert "tok2" not in answer.text
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert answer.body.count(b"[DONE]") == 1
        assert LOST in answer.body
        assert b"EngineCore" not in answer.body
        assert client.send(post(chat())).answer().text == ALL_TEXT


def test_a_whole_answer_that_breaks_is_never_half_sent(gateway: GatewayProcess) -> None:
    """A reply is collected until it is whole; beyond that the connection is cut, not ended."""
    with wire(gateway) as client:
        client.send(post(chat(fault="fin:1")))
        assert client.answer().status == 503
    with wire(gateway) as client:
        client.send(post(chat(pieces=["x" * 6_000_000], fault="fin:1")))
        answer = client.answer()
        assert answer.status == 200
        assert not answer.whole


# --- clients that leave, and clients that are slow


@pytest.mark.parametrize("fields", [{"stream": True, "delay_s": 0.02}, {"stream": True, "fault": "hang:2"}])
def test_the_engine_is_stopped_within_a_second_of_its_clients_leaving(
    gateway: GatewayProcess, engine: EngineProcess, fields: dict[str, object]
) -> None:
    engine.control(clear=True)
    before = gateway.metric("autoglm_requests_total", outcome="cancelled")
    with wire(gateway) as client:
        client.send(post(chat(chunks=100_000, **fields)))
        client.answer(head_only=True)
        left_s = time.time()
    [seen] = engine.seen(ended=1)
    assert seen["outcome"] == "client_gone"
    assert seen["ended_s"] - left_s < 1
    gateway.wait_for_metric("autoglm_requests_total", before + 1, outcome="cancelled")


def test_a_client_that_leaves_before_the_first_byte_counts_as_cancelled(
    gateway: GatewayProcess, engine: EngineProcess
) -> None:
    engine.control(clear=True)
    before = gateway.metric("autoglm_requests_total", outcome="cancelled")
    with wire(gateway) as client:
        client.send(post(chat(fault="hang")))
        engine.seen(begun=1)
    [seen] = engine.seen(ended=1)
    assert seen["outcome"] == "client_gone"
    gateway.wait_for_metric("autoglm_requests_total", before + 1, outcome="cancelled")


def test_a_slow_client_pauses_the_engine_and_the_gateway_keeps_nothing(
    gateway: GatewayProcess, engine: EngineProcess
) -> None:
    engine.control(clear=True)
    worker = psutil.Process(gateway.process.pid)
    before = worker.memory_info().rss
    with wire(gateway) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream(client, chunks=120_000).line()
        first = engine.seen(begun=1, ended=1, timeout_s=1.0)[0]["pieces_sent"]
        assert engine.seen(begun=1, ended=1, timeout_s=0.2)[0]["pieces_sent"] == first < 120_000
        assert worker.memory_info().rss - before < 16 * 2**20
    engine.seen(ended=1)


def test_a_slow_client_gets_everything_in_the_end_and_the_connection_serves_on(
    engine: EngineProcess, gateway: GatewayProcess
) -> None:
    with wire(gateway) as client:
        stream(client, chunks=30_000)
        engine.seen(begun=1, ended=1, timeout_s=0.2)
        answer = client.answer()
        assert answer.body.count(b"data: ") == 30_003
    with wire(gateway) as client:  # the engine's connection went back to the pool, and reads again
        assert client.send(post(chat())).answer().text == ALL_TEXT


def test_many_streams_at_once_do_not_mix(gateway: GatewayProcess) -> None:
    clients = [wire(gateway) for _ in range(20)]
    opened = [each.__enter__() for each in clients]
    try:
        for number, client in enumerate(opened):
            stream(client, pieces=[f"{number}-{i} " for i in range(30)], delay_s=0.001)
        for number, client in enumerate(opened):
            assert client.answer().text == "".join(f"{number}-{i} " for i in range(30))
    finally:
        for each in clients:
            each.__exit__(None, None, None)


def test_a_request_that_takes_too_long_is_ended_and_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        running_engine() as engine,
        running_gateway(tmp_path_factory.mktemp("x"), [engine.url], request_timeout_s=0.2) as gateway,
    ):
        status, _, body = gateway.chat(fault="hang")
        assert (status, json.loads(body)["error"]["code"]) == (504, "request_timeout")
        with wire(gateway) as client:
            answer = stream(client, fault="hang:2").answer()
            assert b'"request_timeout"' in answer.body
            assert answer.body.endswith(b"data: [DONE]\n\n")
        assert [seen["outcome"] for seen in engine.seen(ended=2)] == ["client_gone"] * 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
def test_whoever_stands_between_is_told_to_pass_a_stream_on_and_a_page_may_read_our_headers(
    gateway: GatewayProcess, path: str
) -> None:
    body = {"model": "demo", "stream": True, "prompt": "x", "input": "x"}
    body |= {"max_tokens": 4, "messages": [{"role": "user", "content": "x"}]}
    status, headers, _ = gateway.ask("POST", path, body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "x-autoglm-replica" in headers["access-control-expose-headers"]


def test_errors_have_the_form_of_the_api_that_was_asked(gateway: GatewayProcess) -> None:
    for body, code in (
        ({}, "missing_field"),
        ({"messages": [{"role": "user"}], "model": "?"}, "model_not_found"),
    ):
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            _, _, answer = gateway.ask("POST", path, body)
            error = json.loads(answer)
            assert error["type"] == "error"
            assert error["error"]["type"] in ("invalid_request_error", "not_found_error")
            assert error["error"]["code"] == code
    asked = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "fault": "status:400"}
    answer = gateway.ask("POST", "/v1/messages", asked)[2]
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert b"faulty engine" in answer  # its reason is quoted in ours
