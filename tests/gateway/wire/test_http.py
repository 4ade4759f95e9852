"""HTTP as clients speak it, and as attackers do."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autoglm_serve.gateway.access.doors import DoorPolicy
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, running_gateway
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process

HOST = "HTTP/1.1\r\nHost: x\r\n"
TINY = ConnectionLimits(
    max_head_bytes=2048,
    max_headers=10,
    max_body_bytes=10_000,
    header_timeout_s=0.2,
    body_timeout_s=0.2,
    keep_alive_s=0.2,
    send_timeout_s=0.2,
    max_connections=20,
)


@pytest.fixture(scope="module")
def strict(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with little patience."""
    with running_gateway(tmp_path_factory.mktemp("strict"), [engine.url], limits=TINY) as process:
        yield process


# --- what clients do


def test_a_connection_is_kept_for_the_next_request(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        for _ in range(3):
            assert client.send(post(chat())).answer().text == "tok0 tok1 tok2 tok3 "


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        requests = [
            post(chat(answer="first", first_delay_s=0.05)),
            f"GET /health {HOST}\r\n".encode(),
            post(chat(answer="second", stream=True)),
            post(chat(model="nobody")),
            post(chat(answer="third")),
        ]
        client.send(b"".join(requests))
        answers = [client.answer() for _ in requests]
        assert [answer.status for answer in answers] == [200, 200, 200, 404, 200]
        assert [answers[i].text for i in (0, 2, 4)] == ["first", "second", "third"]


def test_a_request_cut_into_single_bytes_is_one_request(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        request = post(chat())
        client.send(*(request[at : at + 1] for at in range(len(request))))
        assert client.answer().text == "tok0 tok1 tok2 tok3 "


def test_a_chunked_body_is_taken_and_its_trailers_are_no_headers(gateway: GatewayProcess) -> None:
    body = json.dumps(chat()).encode()
    pieces = b"".join(b"%x;ext=1\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
    with wire(gateway) as client:
        client.send(f"POST /v1/chat/completions {HOST}Transfer-Encoding: chunked\r\n\r\n", pieces)
        client.send("0\r\nX-Request-Id: from-a-trailer\r\n\r\n")
        answer = client.answer()
        assert answer.status == 200
        assert answer.headers["x-request-id"] != "from-a-trailer"


def test_expect_100_continue_is_answered_before_the_body(gateway: GatewayProcess) -> None:
    body = json.dumps(chat()).encode()
    with wire(gateway) as client:
        client.send(f"POST /v1/chat/completions {HOST}Expect: 100-continue\r\n")
        client.send(f"Content-Length: {len(body)}\r\n\r\n")
        assert client.answer().status == 100
        assert client.send(body).answer().status == 200


def test_who_asks_first_behind_another_request_is_told_when_its_turn_comes(strict: GatewayProcess) -> None:
    body = json.dumps(chat()).encode()
    with wire(strict) as client:
        head = f"{HOST}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        client.send(post(chat(first_delay_s=0.5)), f"POST /v1/chat/completions {head}")
        assert [client.answer().status for _ in range(2)] == [200, 100]
        assert client.send(body).answer().status == 200


def test_a_body_behind_another_request_has_the_time_of_a_body(engine: EngineProcess, tmp_path: Path) -> None:
    body = json.dumps(chat()).encode()
    limits = ConnectionLimits(header_timeout_s=0.3, body_timeout_s=30)
    with running_gateway(tmp_path, [engine.url], limits=limits) as gateway, wire(gateway) as client:
        head = f"POST /v1/chat/completions {HOST}Content-Length: {len(body)}\r\n\r\n"
        client.send(post(chat(first_delay_s=0.1)) + head.encode())
        assert client.answer().status == 200
        assert gateway.chat(first_delay_s=1)[0] == 200  # meanwhile deadlines are looked at
        assert client.send(body).answer().status == 200


def test_http_1_0_knows_no_continue(gateway: GatewayProcess) -> None:
    body = json.dumps(chat()).encode()
    with wire(gateway) as client:
        client.send("POST /v1/chat/completions HTTP/1.0\r\nExpect: 100-continue\r\n")
        client.send(f"Content-Length: {len(body)}\r\n\r\n", body)
        assert client.answer().status == 200


def test_a_body_that_is_too_large_is_refused_without_a_continue(strict: GatewayProcess) -> None:
    with wire(strict) as client:
        client.send(f"POST /v1/chat/completions {HOST}Expect: 100-continue\r\nContent-Length: 10001\r\n\r\n")
        assert client.answer().status == 413


def test_http_1_0_is_answered_without_chunks_and_closed(gateway: GatewayProcess) -> None:
    body = json.dumps(chat(stream=True)).encode()
    with wire(gateway) as client:
        client.send(f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n", body)
        answer = client.answer()
        assert "transfer-encoding" not in answer.headers
        assert answer.body.endswith(b"data: [DONE]\n\n")


def test_http_1_0_may_ask_to_keep_the_connection(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        for _ in range(2):
            answer = client.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer()
            assert answer.headers["connection"] == "keep-alive"


def test_connection_close_is_honoured(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        answer = client.send(post(chat(), "/v1/chat/completions", "Connection: close")).answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.ended


def test_head_has_the_headers_of_get_and_no_body(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        head = client.send(f"HEAD /v1/models {HOST}X-Request-Id: x\r\n\r\n").answer(head_only=True)
        get = client.send(f"GET /v1/models {HOST}X-Request-Id: x\r\n\r\n").answer()
        assert head.headers == get.headers
        assert int(head.headers["content-length"]) == len(get.body) > 0


def test_a_browser_may_ask_first(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        client.send(f"OPTIONS /v1/chat/completions {HOST}Origin: http://app\r\n")
        client.send("Access-Control-Request-Method: POST\r\n\r\n")
        answer = client.answer()
        assert answer.status == 204
        assert "content-length" not in answer.headers
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert client.send(f"GET /health {HOST}\r\n").answer().status == 200


def test_an_offer_to_upgrade_is_passed_over(gateway: GatewayProcess) -> None:
    upgrade = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB"]
    with wire(gateway) as client:
        assert client.send(post(chat(), "/v1/chat/completions", *upgrade)).answer().status == 200
        assert client.send(f"GET /health {HOST}\r\n").answer().status == 200


@pytest.mark.parametrize(
    ("rest", "status", "code"),
    [
        ("Content-Length: 10001\r\n\r\n", 413, "body_too_large"),
        ("Content-Length: 2\r\n\r\n{}garbage\r\n\r\n", 400, "bad_http"),
    ],
)
def test_what_comes_with_an_offer_to_upgrade_is_refused_as_without(
    strict: GatewayProcess, rest: str, status: int, code: str
) -> None:
    with wire(strict) as client:
        client.send(f"POST /v1/chat/completions {HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n{rest}")
        answers = [client.answer() for _ in range(1 + (status == 400))]
        assert (answers[-1].status, answers[-1].error["code"]) == (status, code)
        assert client.ended


def test_who_offers_to_upgrade_may_ask_to_close(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        client.send(f"GET /health {HOST}Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert client.answer().headers["connection"] == "close"
        assert client.ended


def test_who_offers_to_upgrade_without_end_is_refused(gateway: GatewayProcess) -> None:
    offer = f"GET /health {HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    with wire(gateway) as client:
        client.send(offer * 1000)
        answers = [client.answer()]
        while answers[-1].status == 200:
            answers.append(client.answer())
        assert answers[-1].error["code"] == "bad_http"
        assert client.ended
    assert gateway.ask("GET", "/health")[0] == 200


def test_a_request_without_a_host_is_none_of_http_1_1(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        assert client.send("GET /health HTTP/1.1\r\n\r\n").answer().error["code"] == "bad_http"
    with wire(gateway) as client:
        assert client.send("GET /health HTTP/1.0\r\n\r\n").answer().status == 200


def test_a_page_that_was_led_here_gets_nothing_done(tmp_path: Path, engine: EngineProcess) -> None:
    doors = DoorPolicy(hosts=("localhost",), origins=("https://page.example",))
    with running_gateway(tmp_path, [engine.url], doors=doors) as strict:
        before = len(engine.seen())
        body = {"messages": [{"role": "user", "content": "hi"}]}
        for method, headers, code in (
            ("POST", {"Host": "evil.example"}, "host_not_allowed"),
            ("OPTIONS", {"Host": "evil.example"}, "host_not_allowed"),
            ("POST", {"Origin": "null"}, "origin_not_allowed"),
            ("POST", {"Origin": "https://other.example"}, "origin_not_allowed"),
        ):
            status, _, answer = strict.ask(method, "/v1/chat/completions", body, headers)
            assert (status, json.loads(answer)["error"]["code"]) == (403, code)
        assert len(engine.seen()) == before
        assert strict.ask("POST", "/v1/chat/completions", body, {"Origin": "https://page.example"})[0] == 200


def test_a_target_in_absolute_form_means_its_path(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        assert client.send(f"GET http://x/health?a=b {HOST}\r\n").answer().status == 200


def test_the_request_id_comes_back(gateway: GatewayProcess) -> None:
    headers = gateway.ask("GET", "/health", headers={"X-Request-Id": "abc-1"})[1]
    assert headers["x-request-id"] == "abc-1"


# --- what attackers do


A_POST = f"POST /v1/chat/completions {HOST}"
CHUNKED = A_POST + "Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        A_POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        A_POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        A_POST + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        A_POST + "Content-Length: 2, 2\r\n\r\n{}",
        A_POST + "Content-Length: +2\r\n\r\n{}",
        A_POST + "Content-Length: -2\r\n\r\n{}",
        A_POST + "Content-Length: 0x2\r\n\r\n{}",
        A_POST + "Content-Length: 99999999999999999999999\r\n\r\n{}",
        A_POST + "Content-Length:\r\n\r\n{}",
        A_POST + "Content-Length : 2\r\n\r\n{}",
        A_POST + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        A_POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        A_POST + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
        A_POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        A_POST + "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        A_POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        A_POST + "Host: y\r\nContent-Length: 2\r\n\r\n{}",
        A_POST + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 2\r\n\r\n{}",
        A_POST + "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        "GET /health\r\n\r\n",
        "GET /health HTTP/0.9\r\n\r\n",
        "GET /health HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        A_POST + "X: a\r\n obs-fold\r\n\r\n",
        A_POST + "X: a\x00b\r\n\r\n",
        A_POST + "X: a\rb\r\n\r\n",
        A_POST + ": no name\r\n\r\n",
        A_POST + "no colon\r\n\r\n",
        CHUNKED + "-1\r\n\r\n",
        CHUNKED + "0x2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + "ffffffffffffffffff\r\n",
        CHUNKED + "2\r\n{}extra\r\n0\r\n\r\n",
        CHUNKED + "2\n{}\n0\n\n",
        CHUNKED + "2 \r\n{}\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "G\x00T / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
        "garbage\r\n\r\n",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused_and_the_connection_closed(
    gateway: GatewayProcess, engine: EngineProcess, request_bytes: str
) -> None:
    before = len(engine.seen())
    with wire(gateway) as client:
        client.send(request_bytes.encode("latin-1"), b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_http")
        assert answer.headers["connection"] == "close"
        assert client.ended
    assert len(engine.seen()) == before


def test_a_request_behind_connection_close_is_not_served(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        client.send(f"GET /health {HOST}Connection: close\r\n\r\nGET /version {HOST}\r\n")
        assert b"version" not in client.answer().body + client.rest()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (A_POST + "Content-Length: 10001\r\n\r\n", 413, "body_too_large"),
        (CHUNKED + "2711\r\n" + "x" * 10_001, 413, "body_too_large"),
        (CHUNKED + "1\r\nx\r\n" * 10_001, 413, "body_too_large"),
        (A_POST + "".join(f"X-{i}: y\r\n" for i in range(11)), 431, "headers_too_large"),
        (A_POST + "X: " + "y" * 2050, 431, "headers_too_large"),
        (A_POST + "X" * 5000, 431, "headers_too_large"),
        ("GET /" + "a" * 5000, 431, "headers_too_large"),
        (CHUNKED + "0\r\n" + "".join(f"X-{i}: y\r\n" for i in range(11)), 431, "headers_too_large"),
        (CHUNKED + "1\r\nx\r\n0\r\nX: " + "y" * 300_000, 431, "headers_too_large"),
        (CHUNKED + "1;" + "y" * 300_000, 431, "headers_too_large"),
        (A_POST, 408, "request_timeout"),
        (A_POST + "X-Slow", 408, "request_timeout"),
        (A_POST + "Content-Length: 100\r\n\r\n{", 408, "request_timeout"),
        (CHUNKED + "5\r\nabc", 408, "request_timeout"),
        (CHUNKED + "1\r\nx\r\n0\r\nX: y", 408, "request_timeout"),
    ],
)
def test_what_is_too_large_or_too_slow_is_refused_and_the_connection_closed(
    strict: GatewayProcess, request_bytes: str, status: int, code: str
) -> None:
    with wire(strict) as client:
        client.send(request_bytes)
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.headers["connection"] == "close"
        assert client.ended


def test_the_client_reads_why_its_upload_was_refused_while_it_still_writes(strict: GatewayProcess) -> None:
    with wire(strict) as client:
        client.send(A_POST + "Content-Length: 50000000\r\n\r\n")
        writing = threading.Thread(target=lambda: client.send(b"x" * 2_000_000))
        writing.start()
        assert client.answer().status == 413
        writing.join()


def test_silence_is_ended_without_a_word(strict: GatewayProcess) -> None:
    with wire(strict) as never_spoke, wire(strict) as spoke_once:
        assert spoke_once.send(f"GET /health {HOST}\r\n").answer().status == 200
        assert never_spoke.ended
        assert spoke_once.ended


def test_a_slow_request_behind_another_does_not_cut_the_answer_before_it(strict: GatewayProcess) -> None:
    with wire(strict) as client:
        client.send(post(chat(first_delay_s=1.5)), A_POST + "Content-Length: 100\r\n\r\n{")
        assert client.answer().text == "tok0 tok1 tok2 tok3 "
        assert client.answer().status == 408


def test_a_refusal_comes_behind_the_answers_to_what_came_before(gateway: GatewayProcess) -> None:
    with wire(gateway) as client:
        client.send(post(chat(first_delay_s=0.1)) + post(chat(answer="second")) + b"garbage\r\n\r\n")
        assert [client.answer().status for _ in range(3)] == [200, 200, 400]
        assert client.ended


def test_more_connections_than_allowed_are_told_so(strict: GatewayProcess) -> None:
    sockets = [strict.connect() for _ in range(TINY.max_connections + 1)]
    try:
        assert b"503 Service Unavailable" in sockets[-1].recv(4096)
    finally:
        for each in sockets:
            each.close()
    while strict.metric("autoglm_requests_total", outcome="refused") < 1:
        pass


def test_who_has_its_answers_makes_room_for_who_comes(engine: EngineProcess, tmp_path: Path) -> None:
    """Kept connections that nobody uses may not keep others out."""
    with (
        running_gateway(tmp_path, [engine.url], limits=ConnectionLimits(max_connections=3)) as gateway,
        wire(gateway) as oldest,
        wire(gateway) as second,
        wire(gateway) as busy,
    ):
        for client in (oldest, second):
            assert client.send(f"GET /health {HOST}\r\n").answer().status == 200
        busy.send(post(chat(stream=True, chunks=1000, delay_s=0.001)))
        assert gateway.chat()[0] == 200
        assert oldest.ended
        assert second.send(f"GET /health {HOST}\r\n").answer().status == 200
        assert busy.answer().whole


@pytest.mark.parametrize("next_one", [post(chat()), b"no HTTP\r\n\r\n"], ids=["request", "garbage"])
def test_who_leaves_while_more_of_it_waits_is_noticed(tmp_path: Path, next_one: bytes) -> None:
    with running_engine() as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        with wire(gateway) as client:
            client.send(post(chat(first_delay_s=60)) + next_one)
            engine.seen(begun=1)
        assert [seen["outcome"] for seen in engine.seen(ended=1)] == ["client_gone"]
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="cancelled")
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0


def test_a_client_that_asks_and_never_reads_costs_no_memory_and_is_dropped(
    engine: EngineProcess, tmp_path: Path
) -> None:
    limits = ConnectionLimits(send_timeout_s=1.0)
    with running_gateway(tmp_path, [engine.url], limits=limits) as gateway:
        before = psutil.Process(gateway.process.pid).memory_info().rss
        with wire(gateway) as client:
            client.socket.settimeout(5)
            with pytest.raises(ConnectionError):
                client.send(*[f"GET /v1/models {HOST}\r\n" * 1000] * 10_000)
        grown = psutil.Process(gateway.process.pid).memory_info().rss - before
        assert grown < 24 * 2**20, grown
        assert gateway.ask("GET", "/health")[0] == 200


def test_streams_that_nobody_reads_cost_little_memory_and_give_it_back(tmp_path: Path) -> None:
    limits, count = ConnectionLimits(send_timeout_s=0.5, least_read_rate=1 << 20, max_unread_bytes=0), 4
    with running_engine() as engine, running_gateway(tmp_path, [engine.url], limits=limits) as gateway:
        assert gateway.chat(stream=True)[0] == 200
        before = psutil.Process(gateway.process.pid).memory_info().rss
        with contextlib.ExitStack() as clients:
            for _ in range(count):  # 6 MB each
                client = clients.enter_context(wire(gateway))
                # Or the kernel may take it all.
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                client.send(post(chat(stream=True, chunks=30_000)))
            seen = engine.seen(ended=1 + count, timeout_s=60)
        assert [each["outcome"] for each in seen[1:]] == ["client_gone"] * count
        grown = psutil.Process(gateway.process.pid).memory_info().rss - before
        assert grown < count * 2**21, grown


@pytest.mark.parametrize("piece", [b"2\r\nab\r\n" * 5000])
def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_size(
    gateway: GatewayProcess, piece: bytes
) -> None:
    before = psutil.Process(gateway.process.pid).memory_info().rss
    with wire(gateway) as client:
        client.send(CHUNKED, *([piece] * 400))
        assert gateway.ask("GET", "/health")[0] == 200
        grown = psutil.Process(gateway.process.pid).memory_info().rss - before
    assert grown < 16 * 2**20, grown
