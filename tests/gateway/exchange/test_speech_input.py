"""Audio in a chat for a model without ears: transcribed on the way, or refused by name."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.exchange.speech_input import BufferedClient
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import MODEL, GatewayProcess, running_gateway

pytestmark = pytest.mark.process

EARS = ModelView(names=("ears",), capabilities=frozenset({Capability.TRANSCRIPTION}), on_demand=True)
SOUND = b"RIFF, or so they say"


def replica(slot: int, model: str, url: str, state: ReplicaState = ReplicaState.READY) -> ReplicaView:
    return ReplicaView(id=f"r{slot}", slot=slot, model=model, engine="faulty", state=state, base_url=url)


@contextmanager
def chat_and_ears(
    state_dir: Path, *flags: str, chat: ModelView = MODEL, state: ReplicaState = ReplicaState.READY
) -> Iterator[tuple[GatewayProcess, EngineProcess, EngineProcess]]:
    """A gateway, a chat engine, and a speech engine that was started with `flags`."""
    with running_engine("--chunks", "4") as eyes, running_engine(*flags) as ears:
        fleet = FleetView(
            models=(chat, EARS),
            replicas=(replica(0, "demo", eyes.url), replica(1, "ears", ears.url, state)),
        )
        with running_gateway(state_dir, fleet=fleet) as gateway:
            yield gateway, eyes, ears


def spoken(sound: bytes = SOUND) -> dict[str, Any]:
    data = base64.b64encode(sound).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def as_url(sound: bytes = SOUND) -> dict[str, Any]:
    return {
        "type": "audio_url",
        "audio_url": {"url": "data:audio/ogg;base64," + base64.b64encode(sound).decode()},
    }


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    return error


@pytest.mark.parametrize("part", [spoken(), as_url()], ids=["input_audio", "audio_url"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_chat_model_reads_what_was_said(tmp_path: Path, part: dict[str, Any], stream: bool) -> None:
    with chat_and_ears(tmp_path) as (gateway, eyes, ears):
        text = {"type": "text", "text": "Do it. \u597d"}
        status, headers, body = gateway.chat([part, text], stream=stream, temperature=0.5)
        assert (status, headers["x-autoglm-replica"]) == (200, "r0")
        assert b"tok3" in body
        (heard,) = ears.seen(ended=1)
        assert heard["path"] == "/v1/audio/transcriptions"
        assert dict(heard["headers"])["content-type"].startswith("multipart/form-data; boundary=")
        asked = json.loads(eyes.seen(ended=1)[0]["body"])
        said = {"type": "text", "text": "tok0 tok1"}
        assert asked["messages"] == [{"role": "user", "content": [said, text]}]
        assert asked["temperature"] == 0.5


def test_the_books_have_one_request_and_nothing_stays_in_flight(tmp_path: Path) -> None:
    with chat_and_ears(tmp_path) as (gateway, _, _):
        assert gateway.chat([spoken(), spoken()])[0] == 200
        gateway.wait_for_metric("autoglm_requests_total", 1, outcome="ok")
        assert gateway.metric("autoglm_requests_total") == 1
        assert gateway.metric("autoglm_replica_in_flight_cost_tokens") == 0


def test_a_transcription_is_its_clients_and_the_same_sound_is_the_same_request(tmp_path: Path) -> None:
    with chat_and_ears(tmp_path) as (gateway, eyes, ears):
        body = {"model": "demo", "messages": [{"role": "user", "content": [spoken()]}]}
        for name in ("first", "second"):
            gateway.ask("POST", "/v1/chat/completions", body, {"X-Request-Id": name})
        heard = ears.seen(ended=2)
        names = [[dict(seen["headers"])["x-request-id"] for seen in each] for each in (heard, eyes.seen())]
        assert names == [["first", "second"]] * 2
        assert heard[0]["body_sha256"] == heard[1]["body_sha256"]  # else poison would look new each time


def test_a_model_that_hears_gets_the_audio_itself(tmp_path: Path) -> None:
    hears = ModelView(names=("demo",), capabilities=MODEL.capabilities | {Capability.HEARING})
    with chat_and_ears(tmp_path, chat=hears) as (gateway, eyes, ears):
        assert gateway.chat([spoken()])[0] == 200
        assert json.loads(eyes.seen(ended=1)[0]["body"])["messages"][0]["content"] == [spoken()]
        assert ears.seen() == []


def test_without_a_speech_model_the_refusal_says_how_to_get_one(gateway: GatewayProcess) -> None:
    status, _, body = gateway.chat([spoken()])
    assert (status, error_of(body)["code"]) == (400, "no_hearing")
    assert "autoglm serve" in error_of(body)["message"]


def test_what_the_speech_model_refuses_is_told_with_the_part_that_it_is_about(tmp_path: Path) -> None:
    with chat_and_ears(tmp_path, "--fault", "status:400") as (gateway, eyes, _):
        status, _, body = gateway.chat([{"type": "text", "text": "hi"}, spoken()])
        assert (status, error_of(body)["param"]) == (400, "messages[0].content[1]")
        assert "messages[0].content[1]" in error_of(body)["message"]
        assert eyes.seen() == []


@pytest.mark.parametrize(("fault", "status"), [("status:500", 500), ("reset", 503)])
def test_a_speech_model_that_fails_is_no_fault_of_the_client(tmp_path: Path, fault: str, status: int) -> None:
    with chat_and_ears(tmp_path, "--fault", fault) as (gateway, _, _):
        answered, _, body = gateway.chat([spoken()])
        assert (answered, error_of(body)["type"]) == (status, "server_error")
        assert gateway.metric("autoglm_replica_in_flight_requests") == 0


def test_a_sleeping_speech_model_is_woken_and_waited_for(tmp_path: Path) -> None:
    with chat_and_ears(tmp_path, state=ReplicaState.STOPPED) as (gateway, _, ears):
        statuses: list[int] = []
        asking = threading.Thread(target=lambda: statuses.append(gateway.chat([spoken()])[0]))
        asking.start()
        while {"wake": "ears"} not in gateway.heard:
            assert asking.is_alive(), "it was answered without waking the speech model"
        gateway.set_fleet(
            FleetView(
                models=gateway.fleet.models,
                replicas=(gateway.fleet.replicas[0], replica(1, "ears", ears.url)),
            )
        )
        asking.join()
        assert statuses == [200]


def test_a_speech_model_that_cannot_start_is_not_waited_for(tmp_path: Path) -> None:
    with chat_and_ears(tmp_path, state=ReplicaState.FAILED) as (gateway, _, _):
        status, _, body = gateway.chat([spoken()])
        assert (status, error_of(body)["code"]) == (503, "no_replica_ready")


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio"}, "messages[0].content[0].input_audio"),
        ({"type": "input_audio", "input_audio": {}}, "messages[0].content[0].input_audio.data"),
        ({"type": "input_audio", "input_audio": {"data": 7}}, "messages[0].content[0].input_audio.data"),
        ({"type": "input_audio", "input_audio": {"data": "!"}}, "messages[0].content[0].input_audio.data"),
        ({"type": "audio_url", "audio_url": {"url": "data:,x"}}, "messages[0].content[0].audio_url.url"),
        (
            {"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}},
            "messages[0].content[0].audio_url.url",
        ),
    ],
)
def test_a_part_that_is_no_audio_is_named(tmp_path: Path, part: dict[str, Any], param: str) -> None:
    with chat_and_ears(tmp_path) as (gateway, _, ears):
        status, _, body = gateway.chat([part])
        assert (status, error_of(body)["param"]) == (400, param)
        assert ears.seen() == []


def test_more_audio_than_is_taken_is_refused_before_any_is_heard(tmp_path: Path) -> None:
    with chat_and_ears(tmp_path) as (gateway, _, ears):
        status, _, body = gateway.chat([spoken()] * 9)
        assert (status, error_of(body)["code"]) == (400, "too_much_audio")
        assert ears.seen() == []


def test_a_chat_that_cannot_be_written_again_with_the_text_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    with chat_and_ears(tmp_path) as (gateway, _, _):
        status, _, body = gateway.chat(
            [{**spoken(), "extra": deep}, {"type": "text", "text": "?", "extra": deep}]
        )
        assert (status, error_of(body)["param"]) == (400, "messages")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{}", b"no JSON"])
@pytest.mark.parametrize("status", [200, 500])
def test_what_is_no_transcription_is_an_error_of_the_engine(status: int, body: bytes) -> None:
    client = BufferedClient()
    client.respond(status, (), body)
    with pytest.raises(Refusal, match="is no transcription") as caught:
        client.text("messages[0]")
    assert (caught.value.status, caught.value.code) == (500, "not_heard")
