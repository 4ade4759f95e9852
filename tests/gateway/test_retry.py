"""A replica that fails before the first byte is no client's problem; after it, nothing is sent twice."""

import json
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, running_gateway
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process

ALL_TEXT = "tok0 tok1 tok2 tok3 "


def dead_address() -> str:
    """Where nobody listens: the port was ours a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def two_replicas(
    state_dir: Path, *flags_of_one: str
) -> Iterator[tuple[GatewayProcess, EngineProcess, EngineProcess]]:
    """A gateway in front of an engine with `flags_of_one`, and of one that is sound."""
    with (
        running_engine("--chunks", "4", *flags_of_one) as one,
        running_engine("--chunks", "4") as two,
        running_gateway(state_dir, [one.url, two.url]) as gateway,
    ):
        yield gateway, one, two


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        *("kill", "reset", "fin", "exit", "status:500", "status:502", "status:503:1", "status:504"),
        *("bad_head", "huge_header:300000", "status:302", "status:408", "status:520"),
        *("page", "nothing", "half_json", "error_body"),
    ],
)
def test_another_replica_answers_and_the_client_sees_nothing(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    with two_replicas(tmp_path, "--fault", fault) as (gateway, _, _), wire(gateway) as client:
        for _ in range(4):
            answer = client.send(post(chat(stream=stream))).answer()
            assert (answer.status, answer.text) == (200, ALL_TEXT)
            assert answer.headers["x-autoglm-replica"] == "r1"
        gateway.wait_for_metric("autoglm_requests_total", 4, outcome="ok")
        assert gateway.metric("autoglm_retries_total") >= 1
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0
        assert gateway.metric("autoglm_replica_in_flight_cost_tokens") == 0


@pytest.mark.parametrize("fault", ["reset:0", "fin:0", "end:0", "error:0", "abort:0", "abort:0:error"])
def test_a_stream_that_broke_before_any_text_is_not_shown_twice(tmp_path: Path, fault: str) -> None:
    with two_replicas(tmp_path, "--fault", fault) as (gateway, _, _):
        for _ in range(2):
            with wire(gateway) as client:
                answer = client.send(post(chat(stream=True))).answer()
            assert answer.body.count(b'"role":"assistant"') == 1


def test_a_replica_that_refuses_connections_is_passed_over(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "4") as sound,
        running_gateway(tmp_path, [dead_address(), dead_address(), sound.url]) as gateway,
    ):
        assert [gateway.chat()[0] for _ in range(6)] == [200] * 6


def test_a_fleet_that_only_fails_is_not_asked_many_times_over(tmp_path: Path) -> None:
    with (
        running_engine("--fault", "status:500") as one,
        running_engine("--fault", "status:500") as two,
        running_gateway(tmp_path, [one.url, two.url]) as gateway,
        wire(gateway) as client,
    ):
        statuses = [client.send(post(chat())).answer().status for _ in range(2000)]
        assert set(statuses) == {500}
        assert gateway.metric("autoglm_retries_denied_total") > 100


def test_with_every_replica_lost_the_client_is_told_to_come_back(tmp_path: Path) -> None:
    with running_gateway(tmp_path, [dead_address(), dead_address()]) as gateway:
        status, headers, body = gateway.chat()
        assert (status, headers["retry-after"]) == (503, "1")
        error = json.loads(body)["error"]
        assert error["code"] == "replica_lost"
        assert "r0 ready, r1 ready" in error["message"]
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="lost")
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0


def test_that_the_replicas_failed_is_told_when_none_did_better(tmp_path: Path) -> None:
    with (
        running_engine("--fault", "status:503:7") as engine,
        running_gateway(tmp_path, [engine.url]) as gateway,
    ):
        status, headers, body = gateway.chat()
        assert (status, headers["retry-after"]) == (503, "7")
        assert json.loads(body)["error"]["code"] == "engine_failed"
        assert b"faulty engine" not in body
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="engine_error")


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_turned_away_is_asked_of_a_replica_that_has_room(tmp_path: Path, stream: bool) -> None:
    with two_replicas(tmp_path, "--fault", "status:429:9") as (gateway, one, _):
        for _ in range(8):
            status, headers, _ = gateway.chat(stream=stream)
            assert (status, headers["x-autoglm-replica"]) == (200, "r1")
        assert len(one.seen()) >= 4  # it is well, and is asked again


def test_with_no_room_anywhere_the_client_is_told_at_once_when_to_come_back(tmp_path: Path) -> None:
    with (
        running_engine("--fault", "status:429:7") as one,
        running_engine("--fault", "status:429:7") as two,
        running_gateway(tmp_path, [one.url, two.url], wait_ready_s=30.0) as gateway,
    ):
        status, headers, body = gateway.chat()
        assert (status, headers["retry-after"]) == (429, "7")
        assert json.loads(body)["error"]["code"] == "engine_full"
        assert b"faulty engine" not in body
        assert len(one.seen()) == len(two.seen()) == 1
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="engine_refused")


def test_one_that_names_no_time_is_given_one_and_a_loss_after_it_does_not_hide_it(tmp_path: Path) -> None:
    with (
        running_engine("--fault", "status:429") as full,
        running_gateway(tmp_path, [full.url, dead_address()]) as gateway,
    ):
        for _ in range(2):
            status, headers, _ = gateway.chat()
            assert (status, headers["retry-after"]) == (429, "1")


def test_a_stream_that_does_not_begin_is_asked_of_another(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "4") as one,
        running_engine("--chunks", "4") as two,
        running_gateway(tmp_path, [one.url, two.url], stall_s=0.1) as gateway,
    ):
        for _ in range(20):  # each is known by now
            assert gateway.chat(stream=True)[0] == 200
        one.control(fault="hang", times=1)
        for _ in range(8):  # at least one of them meets it
            assert gateway.chat(stream=True)[0] == 200
        gateway.wait_for_metric("autoglm_retries_total", 1)
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0


def test_who_has_no_socket_left_blames_no_replica(tmp_path: Path) -> None:
    with two_replicas(tmp_path) as (gateway, one, two), wire(gateway) as client:
        client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").answer()
        pid = gateway.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, before[1]))
        answer = client.send(post(chat())).answer()
        assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
        assert "retry-after" in answer.headers
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert client.send(post(chat())).answer().text == ALL_TEXT
        assert gateway.metric("autoglm_retries_total") == 0
        assert not [seen for seen in (*one.seen(), *two.seen()) if seen["outcome"] != "complete"]


def test_connections_to_a_replica_are_kept(tmp_path: Path) -> None:
    with running_engine("--chunks", "4") as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        for turn in range(10):
            assert gateway.chat(stream=bool(turn % 2))[0] == 200
        asked = engine.ask("GET", "/_seen")
        assert (len(asked["requests"]), asked["accepted"]) == (10, 2)  # the second is this question's own


def test_a_kept_connection_that_went_stale_is_replaced_without_a_word(tmp_path: Path) -> None:
    with running_engine("--chunks", "4") as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        for _ in range(10):
            assert gateway.chat(fault="close")[0] == 200
        assert gateway.metric("autoglm_retries_total") == 0


def test_a_replica_killed_under_load_costs_no_request(tmp_path: Path) -> None:
    with two_replicas(tmp_path) as (gateway, one, _), wire(gateway) as client:
        for turn in range(100):
            if turn == 30:
                one.process.send_signal(signal.SIGKILL)
            assert client.send(post(chat(stream=bool(turn % 2)))).answer().text == ALL_TEXT


def test_every_request_of_a_mixed_run_has_one_outcome_and_the_load_returns_to_zero(tmp_path: Path) -> None:
    faults = [None, "status:429", "status:500", "reset", "reset:2", "fin:2"]
    bodies: list[object] = [chat(stream=stream, fault=fault) for stream in (False, True) for fault in faults]
    bodies += [chat(stream=True, fault=fault) for fault in ("error:2", "end:2", "done:2", "garbage:1")]
    bodies += [b"{", {}, chat(model="nobody"), chat(stream="x")]
    with two_replicas(tmp_path) as (gateway, _, _):
        for body in bodies * 2:
            with wire(gateway) as client:
                client.send(post(body)).answer()
        for _ in range(3):
            with wire(gateway) as client:
                client.send(post(chat(stream=True, fault="hang:1"))).answer(head_only=True)
        sent = len(bodies) * 2 + 3
        gateway.wait_for_metric("autoglm_requests_total", sent)
        assert gateway.metric("autoglm_requests_total") == sent
        assert gateway.metric("autoglm_requests_total", outcome="cancelled") == 3
        assert gateway.metric("autoglm_requests_total", outcome="refused") == 8
        assert gateway.metric("autoglm_requests_total", outcome="internal") == 0
        assert gateway.metric("autoglm_request_duration_seconds_count") == sent
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0
        assert gateway.metric("autoglm_replica_in_flight_cost_tokens") == 0


def test_a_replica_that_gives_its_answers_up_gets_no_new_requests_while_there_is_another(
    tmp_path: Path,
) -> None:
    with two_replicas(tmp_path) as (gateway, one, two):
        one.control(fault="abort", times=1)
        for _ in range(8):
            assert gateway.chat()[0] == 200
        assert 1 <= len(one.seen()) <= 2  # the second may have come before its word
        assert len(two.seen()) >= 7


@pytest.mark.parametrize("fault", ["page", "nothing", "half_json", "error_body", "status:302", "status:520"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_stands_in_for_an_engine_is_not_shown_as_its_answer(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    with running_engine("--fault", fault) as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        status, headers, body = gateway.chat(stream=stream)
        assert status >= 500
        assert headers["content-type"].startswith("application/json")
        assert json.loads(body)["error"]["code"]
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="engine_error")
