"""The fake tells the truth: tests that stand on it may trust it."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.fakes.answers import continued, words
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.fakes.faults import STRIKES

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def shared() -> Iterator[EngineProcess]:
    with running_engine("--chunks", "4") as engine:
        yield engine


@contextmanager
def opened(engine: EngineProcess, body: str, timeout_s: float = 5.0) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=timeout_s)
    with closing(connection):
        connection.request("POST", "/v1/chat/completions", body=body)
        with connection.getresponse() as response:
            yield response


def post(engine: EngineProcess, timeout_s: float = 5.0, **fields: Any) -> tuple[int, bytes]:
    """Status and body as far as it came; the error is the caller's to expect."""
    with opened(engine, json.dumps(fields), timeout_s) as response:
        return response.status, response.read()


def text_of(body: bytes) -> str:
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ") and b"DONE" not in line]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_a_stream_and_an_object_hold_the_same_text(shared: EngineProcess) -> None:
    _, stream = post(shared, stream=True, messages=[])
    _, whole = post(shared, messages=[])
    assert text_of(stream) == json.loads(whole)["choices"][0]["message"]["content"] == "tok0 tok1 tok2 tok3 "
    assert stream.endswith(b"data: [DONE]\n\n")


def test_max_tokens_cuts_and_says_length(shared: EngineProcess) -> None:
    _, body = post(shared, max_tokens=2, messages=[])
    choice = json.loads(body)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("tok0 tok1 ", "length")


@pytest.mark.parametrize("cut", range(1, 21))
def test_a_continuation_joins_to_the_same_text(cut: int) -> None:
    pieces = [f"tok{i} " for i in range(4)]
    whole = "".join(pieces)
    assert whole[:cut] + "".join(continued(pieces, whole[:cut])) == whole


def test_a_foreign_prefix_is_told_as_diverged() -> None:
    assert continued(["a", "b"], "x") == ["<diverged>"]


def test_words_join_to_the_text() -> None:
    text = "  <think>look up</think>\n<answer>do(action=1)</answer> "
    assert "".join(words(text)) == text


@pytest.mark.parametrize("fault", ["reset", "fin"])
def test_a_fault_without_a_number_strikes_before_the_first_byte(shared: EngineProcess, fault: str) -> None:
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        post(shared, stream=True, fault=fault)


@pytest.mark.parametrize("fault", ["reset:2", "fin:2", "half:2"])
def test_a_cut_stream_carries_the_pieces_before_the_cut(shared: EngineProcess, fault: str) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)) as cut:
        post(shared, stream=True, fault=fault)
    if isinstance(cut.value, http.client.IncompleteRead):
        assert b"tok1" in cut.value.partial
        assert b"[DONE]" not in cut.value.partial


@pytest.mark.parametrize("fault", ["error:2", "end:2", "done:2"])
def test_a_well_formed_end_can_still_lack_its_finish_reason(shared: EngineProcess, fault: str) -> None:
    _, body = post(shared, stream=True, fault=fault)
    assert b"tok1" in body
    assert b"tok2" not in body
    assert b'"finish_reason":"' not in body


def test_a_status_fault_comes_with_its_retry_after(shared: EngineProcess) -> None:
    assert post(shared, fault="status:429:3")[0] == 429


def test_an_unknown_fault_is_refused_and_names_the_known_ones(shared: EngineProcess) -> None:
    status, body = post(shared, fault="flood")
    assert status == 400
    assert all(name in body.decode() for name in STRIKES)


def test_it_records_what_came_in_and_how_it_ended(shared: EngineProcess) -> None:
    shared.control(clear=True)
    with pytest.raises(TimeoutError):
        post(shared, timeout_s=0.2, stream=True, fault="hang:1")
    [seen] = shared.seen(ended=1)
    assert (seen["outcome"], seen["pieces_sent"]) == ("client_gone", 1)
    assert json.loads(seen["body"])["fault"] == "hang:1"


def test_a_fault_for_all_requests_strikes_as_often_as_told(shared: EngineProcess) -> None:
    shared.control(fault="status:500", times=2)
    assert [post(shared)[0] for _ in range(3)] == [500, 500, 200]


def test_back_pressure_stops_the_answer(shared: EngineProcess) -> None:
    shared.control(clear=True)
    body = json.dumps({"stream": True, "chunks": 50_000})
    with opened(shared, body) as response:
        response.read(1)
        first = shared.seen(begun=1, ended=1, timeout_s=0.5)[0]["pieces_sent"]
        assert shared.seen(begun=1, ended=1, timeout_s=0.1)[0]["pieces_sent"] == first < 50_000


def test_kill_ends_the_process_in_mid_stream() -> None:
    with running_engine() as engine:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            post(engine, stream=True, fault="kill:3")
        assert engine.process.wait(timeout=5) == -9


def test_sigterm_lets_what_is_in_flight_finish() -> None:
    with running_engine("--delay-s", "0.05", "--chunks", "4") as engine:
        with opened(engine, '{"stream": true}') as response:
            engine.process.terminate()
            assert response.read().endswith(b"[DONE]\n\n")
        assert engine.process.wait(timeout=5) == 0


def test_the_lean_path_answers_the_same_text() -> None:
    with running_engine("--lean", "--uvloop", "--chunks", "4") as engine:
        assert text_of(post(engine, stream=True)[1]) == "tok0 tok1 tok2 tok3 "
        assert post(engine, stream=False)[0] == 200
