"""What a worker holds for its clients: never more than its bounds, and all of it given back."""

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.held import Held
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.unread import Unread
from tests.fakes.engine_process import EngineProcess
from tests.gateway.gateway_process import running_gateway
from tests.gateway.raw_http import Wire, chat, post, wire


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 70)), max_size=60))
def test_no_client_and_not_all_together_hold_more_than_their_bound(steps: list[tuple[str, int]]) -> None:
    held, taken = Held(most_bytes=100, most_of_one_bytes=60), list[tuple[str, int]]()
    for client, size in steps:
        had_any = held.of(client) > 0
        if held.take(client, size):
            taken.append((client, size))
            assert held.of(client) <= 60 or not had_any
            assert held.total_bytes <= 100
        elif taken:
            held.give(*taken.pop(0))
    for each in taken:
        held.give(*each)
    assert (held.total_bytes, [held.of(client) for client in "abc"]) == (0, [0, 0, 0])


def test_one_request_of_any_size_is_taken_while_nothing_is_held() -> None:
    held = Held(most_bytes=100, most_of_one_bytes=60)
    assert held.take("a", 1000)
    assert not held.take("a", 1)
    assert not held.take("b", 1)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400)), max_size=50))
def test_an_unread_answer_keeps_its_writer_running_up_to_the_bound(steps: list[tuple[int, int]]) -> None:
    held = Held(most_bytes=10_000, most_of_one_bytes=1000)
    unread, waiting, held_back = Unread(held), 64, False
    unread.begin("a", waiting, (2000, 1000), 5.0)
    for written, read in steps:
        waiting = max(1, waiting + written - read)
        held_back = unread.add(written, waiting) or held_back
        assert held_back == unread.holds_back
        assert unread.holds_back or waiting < 2000
    assert unread.end() == held_back
    assert (held.total_bytes, unread.waits, unread.deadline_s) == (0, False, None)


def test_without_room_the_writer_waits_at_once() -> None:
    held = Held(most_bytes=1000, most_of_one_bytes=1000)
    assert held.take("b", 900)
    unread = Unread(held)
    unread.begin("a", 64, (500,), 5.0)
    assert unread.holds_back


def test_only_who_takes_enough_is_given_more_time() -> None:
    unread = Unread(Held(most_bytes=1 << 20, most_of_one_bytes=1 << 20))
    unread.begin("a", 1000, (5000,), 5.0)
    unread.look(901, 100, 9.0)  # 99 taken
    assert unread.deadline_s == 5.0
    unread.add(50, 950)  # one more
    unread.look(950, 100, 9.0)
    assert unread.deadline_s == 9.0
    unread.look(851, 100, 12.0)
    assert unread.deadline_s == 9.0


# --- a real worker

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


def _announce(client: Wire, size_bytes: int, key: str) -> int:
    """The status with which a body of that size is let come or refused."""
    head = f"{HEAD}Authorization: {key}\r\nExpect: 100-continue\r\nContent-Length: {size_bytes}\r\n\r\n"
    return client.send(head).answer().status


@pytest.mark.process
def test_who_announces_more_than_there_is_room_for_is_refused(tmp_path: Path, engine: EngineProcess) -> None:
    limits = ConnectionLimits(max_held_bytes=1_000_000, max_client_bytes=500_000)
    with running_gateway(tmp_path, [engine.url], limits=limits) as gateway:
        with contextlib.ExitStack() as clients:
            first, second, third, fourth = (clients.enter_context(wire(gateway)) for _ in range(4))
            assert _announce(first, 400_000, "a") == 100
            assert _announce(second, 400_000, "a") == 503  # it has more than its share
            assert _announce(third, 400_000, "b") == 100
            refused = fourth.send(f"{HEAD}Authorization: c\r\nContent-Length: 400000\r\n\r\n").answer()
            assert (refused.status, refused.error["code"]) == (503, "too_much_held")
            assert "--max-held-mb" in refused.error["message"]
            assert refused.headers["retry-after"] == "1"
        with wire(gateway) as later:
            while _announce(later, 400_000, "a") != 100:  # until the worker has seen them leave
                later.socket.close()
                later = Wire(gateway.connect())
            body = json.dumps(chat("x" * 399_000)).encode()
            assert later.send(body.ljust(400_000)).answer().status == 200


@pytest.mark.process
def test_what_came_early_is_no_credit_for_a_body_that_then_drips(
    tmp_path: Path, engine: EngineProcess
) -> None:
    limits = ConnectionLimits(body_timeout_s=0.3)
    with running_gateway(tmp_path, [engine.url], limits=limits) as gateway, wire(gateway) as client:
        client.send(f"{HEAD}Content-Length: 3000000\r\n\r\n", b" " * 2_000_000)
        client.socket.settimeout(0.05)
        begun_s, said = time.monotonic(), b""
        while not said and time.monotonic() - begun_s < 30:
            with contextlib.suppress(TimeoutError):
                client.send(b" ")
                said = client.socket.recv(4096)
    assert b"408" in said.split(b"\r\n")[0]


@pytest.mark.process
def test_an_engine_that_has_said_all_waits_for_no_reader(tmp_path: Path, engine: EngineProcess) -> None:
    with running_gateway(tmp_path, [engine.url]) as gateway, socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.settimeout(30)
        narrow.connect(("127.0.0.1", gateway.port))
        client = Wire(narrow)
        with client.file:
            client.send(post(chat(stream=True, chunks=3000)))  # 600 KB
            gateway.wait_for_metric("autoglm_requests_total", 1, outcome="ok")
            assert gateway.metric("autoglm_replica_in_flight_requests") == 0
            assert client.answer().text == "".join(f"tok{n} " for n in range(3000))
