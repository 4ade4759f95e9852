"""Streams of typed events go on, or end at once in an error of their own kind."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.gateway.recovery.recover import Finish, Hopeless, Resumption, Way
from autoglm_serve.gateway.recovery.seam import Diverged
from autoglm_serve.gateway.recovery.typed_resume import read_told, resume
from autoglm_serve.gateway.wire import sse
from tests.fakes.answers import Answer, message_events, response_events
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, fleet_of, running_gateway

PIECES = [f"tok{number} " for number in range(6)]
ANSWER = Answer(pieces=PIECES, finish_reason="stop", prompt_tokens=7)
PATHS = {"/v1/messages": message_events, "/v1/responses": response_events}
GREEDY = {"temperature": 0, "stream": True, "max_tokens": 100, "messages": [{"role": "user", "content": "x"}]}


def events_of(path: str, number: int, answer: Answer = ANSWER) -> list[bytes]:
    return PATHS[path](answer, {"id": f"id-{number}", "model": "demo"})


def values(events: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(data) for data in sse.data_of(events)]


def resumption(path: str, sent: list[bytes], asked: object = GREEDY, **how: Any) -> Any:
    engine = how.pop("engine", Continuation.NONE)
    return resume(path, orjson.dumps(asked), read_told(sent), engine, **how)


def bare(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without numbers, ids, the time of day, and what says nothing."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(each) for each in value]
        if isinstance(value, dict):
            hidden = ("sequence_number", "id", "item_id", "created_at")
            return {name: plain(each) for name, each in value.items() if name not in hidden}
        return value

    return [plain(event) for event in events if event["type"] != "response.in_progress"]


def ids(value: Any) -> set[str]:
    """Every id in it, at whatever depth."""
    if isinstance(value, list):
        return set().union(*map(ids, value))
    if isinstance(value, dict):
        own = {each for name, each in value.items() if name in ("id", "item_id")}
        return own.union(*(ids(each) for each in value.values()))
    return set()


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events if "sequence_number" in event]


@given(st.sampled_from(list(PATHS)), st.data())
def test_a_replay_joins_to_the_very_stream_that_was_begun(path: str, data: st.DataObject) -> None:
    first, later = events_of(path, 1), events_of(path, 2)
    ends = 2 if path == "/v1/messages" else 1  # events that tell how it ended, and need no replica after them
    cut = data.draw(st.integers(1, len(first) - ends))
    step = resumption(path, first[:cut])
    assert isinstance(step, Resumption)
    found = values(b"".join(first[:cut]) + b"".join(step.splicer.feed(event) for event in later))
    assert bare(found) == bare(values(b"".join(first)))
    assert len(ids(found)) == len(ids(values(b"".join(first))))
    assert numbers(found) == list(range(len(numbers(found))))


def test_a_replay_whose_pieces_are_cut_elsewhere_joins_too() -> None:
    path = "/v1/messages"
    first = events_of(path, 1)
    later = events_of(path, 2, Answer(pieces=["".join(PIECES)], finish_reason="stop", prompt_tokens=7))
    step = resumption(path, first[:4])
    found = values(b"".join(first[:4]) + b"".join(step.splicer.feed(event) for event in later))
    text = "".join(
        event["delta"].get("text", "") for event in found if event["type"] == "content_block_delta"
    )
    assert text == "".join(PIECES)


@pytest.mark.parametrize("path", PATHS)
def test_a_replay_that_says_something_else_is_not_believed(path: str) -> None:
    first = events_of(path, 1)
    other = Answer(pieces=["something else"], finish_reason="stop", prompt_tokens=7)
    step = resumption(path, first[:6])
    with pytest.raises(Diverged):
        step.splicer.feed(b"".join(events_of(path, 2, other)))
    assert isinstance(resumption(path, first[:6], may_replay=False), Hopeless)


def test_a_replay_that_ends_too_early_is_not_believed() -> None:
    first = events_of("/v1/messages", 1)
    short = Answer(pieces=PIECES[:1], finish_reason="stop", prompt_tokens=7)
    step = resumption("/v1/messages", first[:6])
    with pytest.raises(Diverged):
        step.splicer.feed(b"".join(events_of("/v1/messages", 2, short)))


def test_a_message_is_continued_where_the_engine_goes_on_from_a_beginning() -> None:
    first = events_of("/v1/messages", 1)
    sampled = GREEDY | {"temperature": 1.0}
    step = resumption("/v1/messages", first[:4], sampled, engine=Continuation.PREFILL)
    assert isinstance(step, Resumption)
    assert step.way is Way.CONTINUE
    asked = orjson.loads(step.body)
    assert asked["messages"][-1] == {"role": "assistant", "content": "tok0 tok1 "}
    assert asked["max_tokens"] == 98
    rest = Answer(pieces=PIECES[2:], finish_reason="stop", prompt_tokens=9)
    later = events_of("/v1/messages", 2, rest)
    found = values(b"".join(first[:4]) + b"".join(step.splicer.feed(event) for event in later))
    assert bare(found) == bare(values(b"".join(first)))  # usage among it


def test_one_at_its_limit_is_finished_here() -> None:
    first = events_of("/v1/messages", 1)
    step = resumption("/v1/messages", first[:4], GREEDY | {"max_tokens": 2}, engine=Continuation.PREFILL)
    assert isinstance(step, Finish)
    ended = values(step.events)
    assert [event["type"] for event in ended] == ["content_block_stop", "message_delta", "message_stop"]
    assert ended[1]["usage"] == {"output_tokens": 2}


def test_a_sampled_answer_that_cannot_be_handed_over_is_given_up() -> None:
    sampled = GREEDY | {"temperature": 1.0}
    step = resumption(
        "/v1/responses", events_of("/v1/responses", 1)[:6], sampled, engine=Continuation.PREFILL
    )
    assert isinstance(step, Hopeless)
    step = resumption("/v1/messages", events_of("/v1/messages", 1)[:4], sampled, engine=Continuation.FLAGS)
    assert isinstance(step, Hopeless)


@pytest.mark.parametrize("path", PATHS)
def test_before_its_first_text_it_is_simply_asked_again(path: str) -> None:
    first = events_of(path, 1)
    step = resumption(path, first[:2], GREEDY | {"temperature": 1.0})
    assert isinstance(step, Resumption)
    assert step.way is Way.AGAIN
    found = values(b"".join(first[:2]) + b"".join(step.splicer.feed(event) for event in events_of(path, 2)))
    assert bare(found) == bare(values(b"".join(first)))


SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "text"])
NAMES = st.sampled_from(["type", "delta", "text", "index", "id", "item_id", "usage", "sequence_number"])
ODD = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner))


@given(st.sampled_from(list(PATHS)), st.data())
def test_what_has_another_shape_does_no_harm(path: str, data: st.DataObject) -> None:
    """Valid JSON with anything at one of its places, from either replica."""

    def odd(events: list[bytes]) -> list[bytes]:
        found = values(b"".join(events))
        event = data.draw(st.sampled_from(found))
        event[data.draw(st.sampled_from([*event, "delta", "usage"]))] = data.draw(ODD)
        return [sse.event(orjson.dumps(each)) for each in found]

    first, engine = odd(events_of(path, 1)), data.draw(st.sampled_from(list(Continuation)))
    step = resumption(path, first[: data.draw(st.integers(0, len(first)))], engine=engine)
    if isinstance(step, Resumption):
        with contextlib.suppress(Diverged):
            step.splicer.feed(b"".join(odd(events_of(path, 2))))


def test_a_tool_choice_in_the_words_of_another_path_is_read_too() -> None:
    sent = events_of("/v1/messages", 1)[:4]
    step = resumption("/v1/messages", sent, {**GREEDY, "tool_choice": "auto"}, engine=Continuation.PREFILL)
    assert isinstance(step, Resumption)


# --- real processes


@contextmanager
def pair(
    tmp_path: Path, continuation: Continuation = Continuation.NONE
) -> Iterator[tuple[GatewayProcess, EngineProcess]]:
    with (
        running_engine("--chunks", "8") as first,
        running_engine("--chunks", "8") as second,
        running_gateway(
            tmp_path, fleet=fleet_of([first.url, second.url], continuation=continuation), stall_s=0.2
        ) as gateway,
    ):
        yield gateway, first


def stream(gateway: GatewayProcess, path: str, **fields: object) -> bytes:
    body = {"model": "demo", **GREEDY, "input": "x", **fields}
    status, _, answer = gateway.ask("POST", path, body)
    assert status == 200
    return answer


@pytest.mark.process
@pytest.mark.parametrize("at", [0, 1, 7])
@pytest.mark.parametrize("fault", ["kill", "reset", "half", "hang", "garbage", "error", "end"])
@pytest.mark.parametrize("path", PATHS)
def test_the_stream_goes_on_elsewhere(tmp_path: Path, path: str, fault: str, at: int) -> None:
    with pair(tmp_path) as (gateway, first):
        whole = values(stream(gateway, path))
        first.control(fault=f"{fault}:{at}", times=1)
        for _ in range(2):  # one of the two meets it
            found = values(stream(gateway, path))
            assert bare(found) == bare(whole)
            assert len(ids(found)) == (1 if path == "/v1/messages" else 2)
        assert gateway.metric("autoglm_recoveries_total") == 1
        assert gateway.metric("autoglm_requests_total", outcome="ok") == 3


@pytest.mark.process
def test_a_sampled_message_is_continued(tmp_path: Path) -> None:
    with pair(tmp_path, Continuation.PREFILL) as (gateway, first):
        first.control(fault="kill:3", times=1)
        for _ in range(2):
            found = values(stream(gateway, "/v1/messages", temperature=1.0))
            deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
            assert "".join(delta["text"] for delta in deltas) == "".join(f"tok{n} " for n in range(8))
            assert found[-2]["usage"] == {"output_tokens": 8}
        assert gateway.metric("autoglm_recoveries_total", way="continue") == 1


@pytest.mark.process
@pytest.mark.parametrize("path", PATHS)
def test_what_cannot_go_on_ends_at_once_in_an_error_of_its_own_kind(tmp_path: Path, path: str) -> None:
    with pair(tmp_path) as (gateway, first):
        first.control(fault="kill:3", times=1)
        bodies = [stream(gateway, path, temperature=1.0) for _ in range(2)]
        broken = next(body for body in bodies if b"replica_lost" in body)
        assert broken.rpartition(b"event: ")[2].startswith(b"error\n")
        assert values(broken)[-1]["type"] == "error"
        assert b"[DONE]" not in broken
        assert gateway.metric("autoglm_requests_total", outcome="broken") == 1


def test_a_message_that_has_told_how_it_ended_needs_nobody_to_end_it() -> None:
    finish = resumption("/v1/messages", events_of("/v1/messages", 1)[:-1], {**GREEDY, "temperature": 1})
    assert isinstance(finish, Finish)
    assert finish.events == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@pytest.mark.parametrize("path", PATHS)
def test_another_kind_of_item_where_one_had_begun_is_noticed(path: str) -> None:
    begun = 2 if path == "/v1/messages" else 3
    splicer = resumption(path, events_of(path, 1)[:begun], {**GREEDY, "temperature": 1}).splicer
    other = b"".join(events_of(path, 2)).replace(b'"type":"message"', b'"type":"function_call"')
    other = other.replace(b'"content_block":{"type":"text"', b'"content_block":{"type":"tool_use"')
    with pytest.raises(Diverged):
        splicer.feed(other)
