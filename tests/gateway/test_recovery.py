"""A replica dies in the middle of a stream and the client never knows: real processes, real faults."""

import http.client
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from autoglm_serve.core.fleet import Continuation, FleetView
from autoglm_serve.core.replica import Loss, ReplicaState
from autoglm_serve.gateway.wire import sse
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import KEPT_BY_OTHERS, GatewayProcess, fleet_of, running_gateway
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process

STREAMED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 74\r\n\r\n"
    b'{"model":"demo","stream":true,"messages":[{"role":"user","content":"hi"}]}'
)
WHOLE = "tok0 tok1 tok2 tok3 tok4 tok5 tok6 tok7 "


@contextmanager
def pair(tmp_path: Path, **settings: Any) -> Iterator[tuple[GatewayProcess, EngineProcess, EngineProcess]]:
    """A gateway before two engines; the first is asked first, as the second carries something already."""
    with (
        running_engine("--chunks", "8") as first,
        running_engine("--chunks", "8") as second,
        running_gateway(tmp_path, [first.url, second.url], **settings) as gateway,
    ):
        yield gateway, first, second


def strike_whichever_is_asked(fault: str, *engines: EngineProcess) -> None:
    """The request may go to either: both are told, and the one that was not asked forgets it again."""
    for engine in engines:
        engine.control(fault=fault, times=1)


def values_of(body: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(data) for data in sse.data_of(body) if data != sse.DONE]


def text_of(body: bytes) -> str:
    choices = [choice for value in values_of(body) for choice in value.get("choices", ())]
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


def check_one_stream(body: bytes, text: str = WHOLE) -> None:
    """What every client may expect of a stream, whatever happened behind it."""
    values = values_of(body)
    assert not [value for value in values if "error" in value]
    choices = [choice for value in values for choice in value["choices"]]
    assert text_of(body) == text
    assert sum("role" in choice["delta"] for choice in choices) == 1
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert len({(value["id"], value["created"], value["model"]) for value in values}) == 1
    assert body.count(b"[DONE]") == 1
    assert body.endswith(b"data: [DONE]\n\n")


def check_books(gateway: GatewayProcess, outcome: str, count: int) -> None:
    assert gateway.metric("autoglm_requests_total", outcome=outcome) == count
    assert gateway.metric("autoglm_replica_in_flight_requests") == 0
    assert gateway.metric("autoglm_replica_in_flight_cost_tokens") == 0


@pytest.mark.parametrize("at", [0, 1, 4, 7])
@pytest.mark.parametrize(
    "fault", ["kill", "reset", "fin", "error", "end", "done", "abort", "half", "hang", "freeze", "garbage"]
)
def test_the_stream_goes_on_elsewhere(tmp_path: Path, fault: str, at: int) -> None:
    with pair(tmp_path, stall_s=0.2) as (gateway, first, _):
        first.control(fault=f"{fault}:{at}", times=1)
        for _ in range(2):  # one of the two meets the fault
            check_one_stream(gateway.chat(stream=True)[2])
        check_books(gateway, "ok", 2)


@pytest.mark.parametrize("at", [0, 3])
def test_what_no_engine_should_say_is_no_obstacle(tmp_path: Path, at: int) -> None:
    with pair(tmp_path) as (gateway, first, _):
        first.control(fault=f"odd:{at}", times=1)
        bodies = [gateway.chat(stream=True)[2] for _ in range(2)]
        assert sum(b"null" in body and b'"tool_calls":5' in body for body in bodies) == 1
        for body in bodies:
            check_one_stream(body.replace(b'data: {"choices":[null,{"delta":{"tool_calls":5}}]}\n\n', b""))
        check_books(gateway, "ok", 2)


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_it_goes_on_wherever_in_the_bytes_it_was_cut(tmp_path: Path, how: str) -> None:
    """Every third byte of the reply, from its first to its last but the end of its framing."""
    with pair(tmp_path) as (gateway, first, _), wire(gateway) as client:
        whole = gateway.chat(stream=True)[2]
        length = len(whole) + whole.count(b"\n\n") * len("b0\r\n\r\n") + 100  # about: the head and framing
        for cut in range(1, length, 3):
            first.control(fault=f"cut:{cut}:{how}", times=1)
            for _ in range(2):  # one of the two meets it
                answer = client.send(post(chat(stream=True))).answer()
                check_one_stream(answer.body)
        check_books(gateway, "ok", 1 + 2 * len(range(1, length, 3)))


def test_usage_adds_up_over_both_replicas(tmp_path: Path) -> None:
    with pair(tmp_path) as (gateway, first, _):
        whole = values_of(gateway.chat(stream=True, stream_options={"include_usage": True})[2])[-1]["usage"]
        first.control(fault="kill:3", times=1)
        for _ in range(2):
            body = gateway.chat(stream=True, stream_options={"include_usage": True})[2]
            usage = values_of(body)[-1]["usage"]
            assert usage["completion_tokens"] == whole["completion_tokens"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_reasoning_is_split_off_across_the_seam(tmp_path: Path) -> None:
    with pair(tmp_path) as (gateway, first, _):
        first.control(fault="kill:2", times=1)
        pieces = ["<think>", "one ", "two</thi", "nk>", "<answer>", "do()"]
        for _ in range(2):
            body = gateway.chat(stream=True, return_reasoning=True, pieces=pieces)[2]
            deltas = [choice["delta"] for value in values_of(body) for choice in value["choices"]]
            assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "one two"
            assert "".join(delta.get("content") or "" for delta in deltas) == "<answer>do()"


def test_a_replay_is_held_against_what_was_sent(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "8") as first,
        running_engine("--chunks", "8") as second,
        running_gateway(
            tmp_path, fleet=fleet_of([first.url, second.url], continuation=Continuation.NONE)
        ) as gateway,
    ):
        first.control(fault="kill:5", times=1)
        for _ in range(2):
            check_one_stream(gateway.chat(stream=True, temperature=0)[2])
        assert gateway.metric("autoglm_recoveries_total", way="replay") == 1


def test_what_cannot_go_on_ends_at_once_in_a_typed_error_and_is_counted(tmp_path: Path) -> None:
    with pair(tmp_path) as (gateway, first, _):
        first.control(fault="kill:3", times=1)
        bodies = [gateway.chat(stream=True, response_format={"type": "json_object"})[2] for _ in range(2)]
        broken = next(body for body in bodies if b'"error"' in body)
        last = values_of(broken)[-1]
        assert last["error"]["code"] == "replica_lost"
        assert broken.endswith(b"data: [DONE]\n\n")
        check_books(gateway, "broken", 1)


def test_the_supervisors_word_is_enough(tmp_path: Path) -> None:
    with pair(tmp_path, stall_s=1000.0) as (gateway, first, second):
        strike_whichever_is_asked("hang:3", first, second)
        with gateway.connect() as client:
            client.sendall(STREAMED)
            got = b""
            while b"tok2" not in got:
                got += client.recv(65536)
            asked = first if first.seen() else second
            for engine in (first, second):
                engine.control(fault=None, times=0)
            left = second if asked is first else first
            view = fleet_of([first.url, second.url])
            states = [
                ReplicaState.WAITING if replica.base_url == asked.url else ReplicaState.READY
                for replica in view.replicas
            ]
            gateway.set_states(states)
            while b"[DONE]" not in got:
                got += client.recv(65536)
            assert left.seen()
            assert got.count(b'"role"') == 1


def test_a_request_that_kills_every_replica_it_meets_is_stopped_after_the_second(tmp_path: Path) -> None:
    with (
        running_engine() as first,
        running_engine() as second,
        running_engine() as third,
        running_gateway(tmp_path, [first.url, second.url, third.url]) as gateway,
    ):
        status, _, body = gateway.chat("poison", fault="kill", stream=True)
        assert status == 503
        assert orjson.loads(body)["error"]["code"] == "request_kills_replicas"
        engines = (first, second, third)
        while len(alive := [one for one in engines if one.process.poll() is None]) > 1:
            pass  # the kernel closes a dead process's sockets before it reports it
        assert len(alive) == 1
        gateway.set_fleet(fleet_of([alive[0].url]))  # as the supervisor would
        status, _, body = gateway.chat("poison", fault="kill", stream=True)  # quarantined by its content
        assert status == 503
        assert alive[0].process.poll() is None
        assert gateway.chat("something else")[0] == 200


def test_a_request_that_meets_two_strangers_kills_is_answered_by_the_third(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "8") as first,
        running_engine("--chunks", "8") as second,
        running_engine("--chunks", "8") as third,
        running_gateway(tmp_path, [first.url, second.url, third.url]) as gateway,
        gateway.connect() as client,
    ):
        left = [first, second, third]
        strike_whichever_is_asked("hang", *left)
        client.sendall(STREAMED)
        for _ in range(2):
            asked = next_asked(left)
            asked.kill()
            left.remove(asked)
            gateway.set_fleet(without(gateway.fleet, asked, by_itself=False))
        next_asked(left)
        left[0].control(fault=None, times=0)
        for engine in left:
            assert len(engine.seen(begun=1)) == 1  # it hangs there, and is not refused
        assert gateway.metric("autoglm_requests_total", outcome="refused") == 0
        assert gateway.chat("something else", stream=True)[0] == 200


def next_asked(engines: list[EngineProcess]) -> EngineProcess:
    """The one that has the request; it is somewhere, or on its way."""
    while True:
        for engine in engines:
            if engine.seen(begun=1, timeout_s=0.05):
                return engine


def without(fleet: FleetView, engine: EngineProcess, *, by_itself: bool) -> FleetView:
    """The fleet as the supervisor sees it when an engine is gone."""
    loss = Loss(base_url=engine.url, by_itself=by_itself)
    return replace(
        fleet,
        replicas=tuple(
            replace(each, state=ReplicaState.WAITING, base_url="", lost=loss)
            if each.base_url == engine.url
            else each
            for each in fleet.replicas
        ),
    )


def test_of_two_that_a_replica_died_under_only_the_poison_is_stopped(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "8") as first,
        running_engine("--chunks", "8") as second,
        running_engine("--chunks", "8") as third,
        running_gateway(tmp_path, [first.url], wait_ready_s=30.0) as gateway,
        ThreadPoolExecutor() as threads,
    ):
        sound = threads.submit(gateway.chat, "sound", stream=True, first_delay_s=0.3)
        first.seen(begun=1)
        poison = threads.submit(gateway.chat, "poison", stream=True, fault="kill")
        for dead, successor in ((first, second), (second, third)):  # both are sent to the second, too
            dead.process.wait(timeout=10)
            gateway.set_fleet(fleet_of([successor.url]))
        assert [answer.result()[0] for answer in (sound, poison)] == [200, 503]
        check_one_stream(sound.result()[2])
        assert third.process.poll() is None


def test_it_is_stopped_on_kept_connections_too(tmp_path: Path) -> None:
    with (
        running_engine() as first,
        running_engine() as second,
        running_engine() as third,
        running_gateway(tmp_path, [first.url, second.url, third.url]) as gateway,
    ):
        for _ in range(6):  # each replica has a connection that was used before
            assert gateway.chat("warm-up")[0] == 200
        status, _, body = gateway.chat("poison", fault="kill", stream=True)
        assert status == 503
        assert orjson.loads(body)["error"]["code"] == "request_kills_replicas"
        assert gateway.chat("something else")[0] == 200


def test_replicas_that_died_before_it_came_are_not_held_against_a_request(tmp_path: Path) -> None:
    with running_engine() as first, running_engine() as second:  # noqa: SIM117
        with running_gateway(tmp_path, [first.url, second.url]) as gateway, wire(gateway) as client:
            for _ in range(6):  # each replica has a connection that was used before
                assert gateway.chat("warm-up")[0] == 200
            gateway.process.send_signal(signal.SIGSTOP)
            for engine in (first, second):
                engine.kill()
            client.send(STREAMED)
            gateway.process.send_signal(signal.SIGCONT)  # it hears of all three at once
            answer = client.answer()
            assert (answer.status, answer.error["code"]) == (503, "replica_lost")


def test_an_answer_in_one_piece_of_which_a_part_went_out_is_not_asked_for_again(tmp_path: Path) -> None:
    with pair(tmp_path) as (gateway, *engines):
        strike_whichever_is_asked("reset:1", *engines)
        with pytest.raises(http.client.IncompleteRead):
            gateway.chat(answer="x" * (12 << 20))
        assert sum(len(engine.seen()) for engine in engines) == 1
        check_books(gateway, "broken", 1)


def test_a_stream_that_finds_no_room_waits_for_it(tmp_path: Path) -> None:
    with pair(tmp_path) as (gateway, first, second):
        first.control(fault="kill:3", times=1)
        with ThreadPoolExecutor() as threads:
            asked = [threads.submit(gateway.chat, stream=True, delay_s=0.05) for _ in range(2)]
            second.seen(begun=1)
            second.control(fault="status:429", times=2)
            for answer in asked:
                check_one_stream(answer.result()[2])


def test_a_client_that_leaves_is_not_retried(tmp_path: Path) -> None:
    with pair(tmp_path) as (gateway, first, second):
        strike_whichever_is_asked("hang", first, second)
        with gateway.connect() as client:
            client.sendall(STREAMED)
            seen = first if first.seen(begun=1, timeout_s=0.3) else second
            seen.seen(begun=1)
        seen.seen(ended=1)
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="cancelled")
        assert len(first.seen()) + len(second.seen()) == 1


def test_a_request_waits_for_a_replica_to_come_back(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "8") as dying,
        running_engine("--chunks", "8") as successor,
        running_gateway(tmp_path, [dying.url], wait_ready_s=30.0) as gateway,
        gateway.connect() as client,
    ):
        dying.control(fault="kill:4", times=1)
        client.sendall(STREAMED)
        got = b""
        while b"tok3" not in got:
            got += client.recv(65536)
        gateway.set_fleet(fleet_of([successor.url]))
        while b"[DONE]" not in got:
            got += client.recv(65536)
        assert b"tok7" in got
        assert b'"error"' not in got


@pytest.mark.parametrize("fault", ["kill:8", "kill:3"])
@pytest.mark.parametrize("limit", [3, 8, 20])
def test_usage_comes_when_it_was_asked_for_wherever_the_replica_died(
    tmp_path: Path, fault: str, limit: int
) -> None:
    """After 8 pieces the text is complete: what is missing is how it ended, or only its usage."""
    asked = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": limit}
    with pair(tmp_path) as (gateway, first, _):
        whole = values_of(gateway.chat(**asked)[2])
        first.control(fault=fault, times=1)
        for _ in range(2):
            values = values_of(gateway.chat(**asked)[2])
            assert text_of(b"".join(sse.event(orjson.dumps(value)) for value in values)) == text_of(
                b"".join(sse.event(orjson.dumps(value)) for value in whole)
            )
            counted = [value["usage"] for value in values if value.get("usage")]
            assert len(counted) == 1
            assert counted[0]["completion_tokens"] == min(limit, 8)
            ends = [choice["finish_reason"] for value in values for choice in value["choices"]]
            (end,) = [end for end in ends if end]
            assert end in {3: ("length",), 8: ("length", "stop"), 20: ("stop",)}[limit]


def alone(url: str) -> FleetView:
    """One address that others keep."""
    return fleet_of([url], engine=KEPT_BY_OTHERS)


@pytest.mark.parametrize("fault", ["reset", "reset:4"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_single_address_that_resets_once_is_asked_again(tmp_path: Path, fault: str, stream: bool) -> None:
    with (
        running_engine("--chunks", "8") as engine,
        running_gateway(tmp_path, fleet=alone(engine.url), wait_ready_s=30.0) as gateway,
    ):
        engine.control(fault=fault, times=1)
        status, _, body = gateway.chat(stream=stream)
        assert status == 200
        if stream:
            check_one_stream(body)
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0


def test_what_has_no_way_to_go_on_waits_for_nobody(tmp_path: Path) -> None:
    with (
        running_engine("--chunks", "8") as engine,
        running_gateway(tmp_path, fleet=alone(engine.url), wait_ready_s=600.0) as gateway,
    ):
        engine.control(fault="reset:4", times=1)
        body = gateway.chat(stream=True, response_format={"type": "json_object"})[2]
        assert values_of(body)[-1]["error"]["code"] == "replica_lost"


@pytest.mark.parametrize("stream", [False, True])
def test_a_reset_of_everybody_at_two_addresses_that_are_well_is_nobodys_fault(
    tmp_path: Path, stream: bool
) -> None:
    with (
        running_engine("--chunks", "8") as first,
        running_engine("--chunks", "8") as second,
        running_gateway(
            tmp_path, fleet=fleet_of([first.url, second.url], engine=KEPT_BY_OTHERS), wait_ready_s=30.0
        ) as gateway,
        ThreadPoolExecutor(8) as threads,
    ):
        for engine in (first, second):
            engine.control(fault="reset", times=4)
        answers = [threads.submit(gateway.chat, f"say {number}", stream=stream) for number in range(8)]
        assert [answer.result()[0] for answer in answers] == 8 * [200]
