"""What the gateway counts on from every engine: the stand-in and the real one are held to the same.

A test that passes against the faulty engine and would fail against a real one proves nothing; this is where
such a difference shows.
"""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.engines.base import Engine, Listen
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.engines.llama_cpp import LlamaCpp
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.ports import LOOPBACK, PortLease
from autoglm_serve.launch.process import kill_session
from tests.engines.hosts.test_llama_cpp_host import member as demo_member
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member

pytestmark = pytest.mark.process

START_TIMEOUT_S = 20.0
QUESTION = {"role": "user", "content": "hi"}


class Served:
    """An engine that serves; `ask` leaves the whole answer to the test."""

    def __init__(self, port: int, model: str) -> None:
        self.port = port
        self.model = model

    @contextmanager
    def ask(self, method: str, path: str, fields: Any = None) -> Iterator[http.client.HTTPResponse]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body=json.dumps(fields) if fields is not None else None)
            with connection.getresponse() as response:
                yield response

    def chat(self, **fields: Any) -> bytes:
        body = {"model": self.model, "messages": [QUESTION], "temperature": 0, "max_tokens": 6, **fields}
        with self.ask("POST", "/v1/chat/completions", body) as response:
            assert response.status == 200
            return response.read()


def start(engine: Engine, member: Member, state_dir: Path) -> Iterator[Served]:
    """As the supervisor starts it: through its adapter and the launcher, on a leased port."""
    launcher = LocalLauncher(state_dir)
    with PortLease() as lease:
        listen = Listen(host=LOOPBACK, port=lease.port)
        process = launcher.spawn("r0", engine.command(member, Placement(), listen), lease.port)
        try:
            served = Served(lease.port, member.name)
            wait_until_healthy(served, engine)
            yield served
        finally:
            kill_session(process.record.identity)


def wait_until_healthy(served: Served, engine: Engine) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with suppress(ConnectionError), served.ask("GET", engine.health_path) as response:
            if response.status == 200:
                return
        time.sleep(0.01)  # nothing tells us when a port begins to answer
    raise AssertionError("the engine did not become healthy")


@pytest.fixture(scope="module", params=["faulty", "llama.cpp"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state_dir = tmp_path_factory.mktemp("state")
    match request.param:
        case "faulty":
            yield from start(FaultyAdapter(), faulty_member(), state_dir)
        case _:
            yield from start(LlamaCpp(), demo_member(), state_dir)


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events before [DONE], which has to be there."""
    events = [event for event in body.decode().split("\n\n") if event and not event.startswith(":")]
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def text_of(events: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_its_model_is_listed_under_the_served_name(engine: Served) -> None:
    with engine.ask("GET", "/v1/models") as response:
        assert json.loads(response.read())["data"][0]["id"] == engine.model


def test_a_stream_has_one_id_one_role_and_one_finish_reason(engine: Served) -> None:
    events = events_of(engine.chat(stream=True))
    assert len({event["id"] for event in events}) == 1
    choices = [choice for event in events for choice in event["choices"]]
    assert [c["delta"]["role"] for c in choices if "role" in c["delta"]] == ["assistant"]
    assert choices[0]["delta"]["role"] == "assistant"
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert reasons in (["stop"], ["length"])
    assert choices[-1]["finish_reason"]


def test_a_stream_and_an_object_hold_the_same_text(engine: Served) -> None:
    whole = json.loads(engine.chat())
    assert whole["choices"][0]["message"]["content"] == text_of(events_of(engine.chat(stream=True)))


def test_usage_comes_when_asked_for_in_an_event_of_its_own(engine: Served) -> None:
    events = events_of(engine.chat(stream=True, stream_options={"include_usage": True}))
    assert events[-1]["choices"] == []
    usage = events[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert not any("usage" in event and event["usage"] for event in events[:-1])


def test_usage_is_in_every_object(engine: Served) -> None:
    assert json.loads(engine.chat())["usage"]["completion_tokens"] <= 6


def test_a_last_message_of_the_assistant_is_continued_in_a_stream(engine: Served) -> None:
    """The whole text is the prefix and what follows it; the prefix is not said again."""
    whole = events_of(engine.chat(stream=True, ignore_eos=True))
    pieces = [text for event in whole if (text := text_of([event]))]
    prefix = "".join(pieces[: len(pieces) // 2])
    assert prefix
    messages = [QUESTION, {"role": "assistant", "content": prefix}]
    continued = events_of(engine.chat(stream=True, ignore_eos=True, messages=messages))
    assert text_of(continued)
    assert not text_of(continued).startswith(prefix)


def test_an_unknown_field_is_no_reason_to_refuse(engine: Served) -> None:
    assert engine.chat(x_unknown={"a": 1})


def test_a_broken_body_is_not_a_reason_to_die(engine: Served) -> None:
    with engine.ask("POST", "/v1/chat/completions", "no object"):
        pass
    assert engine.chat()


def test_a_client_that_leaves_does_not_stop_the_next(engine: Served) -> None:
    body = {"messages": [QUESTION], "stream": True, "max_tokens": 500, "chunks": 500}
    with engine.ask("POST", "/v1/chat/completions", body) as response:
        response.read(10)
    assert engine.chat()


# --- what a log may hold


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize(
    "line",
    [
        "Model loading took . GiB",
        "Graph capturing finished in 6 secs, took .. GiB",
        f"Available KV cache memory: {'9' * 400} GiB",
        "GPU KV cache size: ,,, tokens",
        f"GPU KV cache size: {'1' * 5000} tokens",
        f"Loading safetensors checkpoint shards: {'9' * 5000}%",
        "Load weight end. mem usage=1.2.3 GB",
        f"max_total_num_tokens={'1' * 5000}",
    ],
)
def test_a_line_that_looks_like_a_report_and_is_none(engine: Engine, line: str) -> None:
    """A log may repeat what a client wrote; an error here would end the service."""
    engine.progress(line)
    engine.measured(line)
    engine.warning(line)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("line", ["a" * 16_384, "Load weight end " * 1_024], ids=["word", "repeated"])
def test_a_long_line_is_searched_at_once(engine: Engine, line: str) -> None:
    """A request that an engine logs with its picture in it is one word of thousands of letters."""
    begun_s = time.process_time()
    for _ in range(20):
        engine.progress(line)
        engine.measured(line)
        engine.warning(line)
    assert time.process_time() - begun_s < 1.0
