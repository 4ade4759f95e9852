"""A request through the gateway: what the engine gets, and what the client gets back."""

import base64
import hashlib
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autoglm_serve.core.fleet import ModelView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.launch import admin_token
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.fakes.pictures import image
from tests.gateway.gateway_process import MODEL, GatewayProcess, fleet_of, running_gateway
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process

ALL_TEXT = "tok0 tok1 tok2 tok3 "


# --- what the engine gets


def test_the_body_reaches_the_engine_byte_for_byte(gateway: GatewayProcess, engine: EngineProcess) -> None:
    engine.control(clear=True)
    body = b'{ "messages":[{"content":"\\u70b9","role":"user"}],\r\n "x_unknown" :1e3 }'
    gateway.ask(
        "POST", "/v1/chat/completions?a=b", body, {"X-Request-Id": "id-7", "Authorization": "Bearer k"}
    )
    [seen] = engine.seen(ended=1)
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
    headers = dict(seen["headers"])
    assert headers["x-request-id"] == "id-7"
    assert "authorization" not in headers  # it is the gateway's, no engine of ours has a key of its own


def test_a_large_picture_goes_through(gateway: GatewayProcess, engine: EngineProcess) -> None:
    engine.control(clear=True)
    noise = io.BytesIO()
    Image.frombytes("RGB", (800, 700), os.urandom(800 * 700 * 3)).save(noise, "PNG")
    url = "data:image/png;base64," + base64.b64encode(noise.getvalue()).decode()
    assert gateway.chat([image(url), {"type": "text", "text": "?"}])[0] == 200
    [seen] = engine.seen(ended=1)
    assert seen["body_bytes"] > 2_000_000


def test_another_name_upstream_is_spliced_in(tmp_path: Path, engine: EngineProcess) -> None:
    engine.control(clear=True)
    fleet = fleet_of([engine.url], upstream_model="faulty", engine="external")
    with running_gateway(tmp_path, fleet=fleet) as gateway:
        body = b'{"messages":[{"role":"user","content":"x"}], "model" : "alias" }'
        headers = {"Authorization": "Bearer k"}
        assert gateway.ask("POST", "/v1/chat/completions", body, headers)[0] == 200
    [seen] = engine.seen(ended=1)
    assert seen["body"].encode() == body.replace(b'"alias"', b'"faulty"')
    assert "authorization" not in dict(seen["headers"])  # what a client sends for a key stays here


def test_thinking_switches_as_langchain_sends_them(gateway: GatewayProcess, engine: EngineProcess) -> None:
    answer = "<think>\nlook up\n</think>\n<answer>do(action=1)"
    for stream in (False, True):
        engine.control(clear=True)
        with wire(gateway) as client:
            body = chat(answer=answer, stream=stream, enable_thinking=False, return_reasoning=True)
            reply = client.send(post(body)).answer()
        [seen] = engine.seen(ended=1)
        assert json.loads(seen["body"])["chat_template_kwargs"] == {"enable_thinking": False}
        assert reply.text == "<answer>do(action=1)"
        if stream:
            events = [json.loads(line[6:]) for line in reply.body.split(b"\n") if line.startswith(b"data: {")]
            deltas = [choice["delta"] for event in events for choice in event["choices"]]
            assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "look up"
        else:
            message = json.loads(reply.body)["choices"][0]["message"]
            assert message["reasoning_content"] == "look up"


def test_content_stays_as_the_model_wrote_it_unless_asked(gateway: GatewayProcess) -> None:
    answer = "<think>\nlook up\n</think>\n<answer>do(action=1)"
    for stream in (False, True):
        with wire(gateway) as client:
            assert client.send(post(chat(answer=answer, stream=stream))).answer().text == answer


def test_other_paths_of_the_api_pass(tmp_path: Path, engine: EngineProcess) -> None:
    everything = replace(MODEL, capabilities=frozenset(Capability))
    with running_gateway(tmp_path, fleet=fleet_of([engine.url], models=(everything,))) as gateway:
        assert gateway.ask("POST", "/v1/embeddings", {"model": "demo", "input": "x"})[0] == 200
        assert gateway.ask("POST", "/v1/responses", {"model": "demo", "input": "x"})[0] == 200
        assert gateway.ask("POST", "/v1/completions", {"model": "demo", "prompt": "x"})[0] == 200
        messages = [{"role": "user", "content": "x"}]
        assert gateway.ask("POST", "/v1/messages", {"model": "demo", "messages": messages})[0] == 200
        engine.control(clear=True)
        form = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n\xff\x00RIFF\r\n--b--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        status, _, body = gateway.ask("POST", "/v1/audio/transcriptions", form, kind)
        assert (status, json.loads(body)["text"]) == (200, "tok0 tok1")
        [seen] = engine.seen(ended=1)
        assert seen["body_sha256"] == hashlib.sha256(form).hexdigest()
        assert dict(seen["headers"])["content-type"] == kind["Content-Type"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    "/tokenize /detokenize /pause /resume /invocations /update_weights /docs /openapi.json /slots /props "  # noqa: SIM905
    "/collective_rpc /sleep /server_info /v1 /v1/ /v1/tokenize /v2/chat/completions "
    "/v1/chat/completions/render /v1//tokenize //slots /v1/%74okenize "
    "/v1/models/../../tokenize /v1/chat/completions/../../../tokenize".split(),
)
def test_nothing_else_of_an_engine_can_be_reached(
    gateway: GatewayProcess, engine: EngineProcess, method: str, path: str
) -> None:
    before = len(engine.seen())
    status, _, body = gateway.ask(method, path, b"{}" if method == "POST" else None)
    assert status in (404, 405)
    assert json.loads(body)["error"]["code"] in ("unknown_path", "model_not_found", "wrong_method")
    assert len(engine.seen()) == before


# --- what the gateway answers by itself


def test_bad_requests_are_refused_with_an_envelope_and_never_reach_the_engine(
    gateway: GatewayProcess, engine: EngineProcess
) -> None:
    before = len(engine.seen())
    for body, status, param in (
        (b"{", 400, None),
        (b'{"messages": "\xff"}', 400, None),
        (b"{}", 400, "messages"),
        (chat(stream="yes"), 400, "stream"),
        (chat(model="gpt"), 404, "model"),
        (chat([image("data:image/png;base64,AAAA")]), 400, "messages[0].content[0].image_url.url"),
        (chat([image("data:image/png")]), 400, "messages[0].content[0].image_url.url"),
    ):
        answered, headers, text = gateway.ask("POST", "/v1/chat/completions", body)
        error = json.loads(text)["error"]
        assert (answered, error["param"]) == (status, param)
        assert set(error) == {"message", "type", "param", "code"}
        assert headers["content-type"] == "application/json"
    assert len(engine.seen()) == before


def test_the_wrong_method_is_told_the_right_one(gateway: GatewayProcess) -> None:
    assert gateway.ask("GET", "/v1/chat/completions")[0] == 405
    assert gateway.ask("POST", "/v1/models", {})[0] == 405


def test_health_ready_version_and_models(gateway: GatewayProcess) -> None:
    assert gateway.ask("GET", "/health")[0] == 200
    assert json.loads(gateway.ask("GET", "/ready")[2]) == {"status": "ready", "replicas": {"r0": "ready"}}
    status, headers, home = gateway.ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert b"autoglm-serve test" in home
    assert b"/v1" in home
    assert json.loads(gateway.ask("GET", "/version")[2]) == {"version": "test"}
    assert [card["id"] for card in json.loads(gateway.ask("GET", "/v1/models")[2])["data"]] == [
        "demo",
        "alias",
    ]
    assert json.loads(gateway.ask("GET", "/v1/models/alias")[2])["root"] == "demo"
    assert gateway.ask("GET", "/v1/models/none")[0] == 404


@pytest.mark.parametrize(
    ("state", "retry_after"), [(ReplicaState.STARTING, "2"), (ReplicaState.FAILED, "30")]
)
def test_with_no_replica_ready_the_fleet_is_told(
    tmp_path: Path, state: ReplicaState, retry_after: str
) -> None:
    with running_gateway(tmp_path, fleet=fleet_of(["http://127.0.0.1:9"], state=state)) as gateway:
        status, headers, body = gateway.chat()
        assert (status, headers["retry-after"]) == (503, retry_after)
        assert json.loads(body)["error"]["code"] == "no_replica_ready"
        assert f"r0 {state}" in json.loads(body)["error"]["message"]
        assert gateway.ask("GET", "/ready")[0] == 503


def test_a_request_waits_for_a_replica_that_is_starting(tmp_path: Path, engine: EngineProcess) -> None:
    starting = fleet_of([engine.url], state=ReplicaState.STARTING)
    with running_gateway(tmp_path, fleet=starting, wait_ready_s=20) as gateway, wire(gateway) as client:
        client.send(post(chat()))
        gateway.set_fleet(fleet_of([engine.url]))
        assert client.answer().text == ALL_TEXT


def test_a_model_that_runs_on_demand_is_woken(tmp_path: Path, engine: EngineProcess) -> None:
    sleeper = ModelView(names=("ears",), capabilities=frozenset({Capability.CHAT}), on_demand=True)
    asleep = fleet_of([engine.url], state=ReplicaState.STOPPED, models=(sleeper,))
    with running_gateway(tmp_path, fleet=asleep, wait_ready_s=20) as gateway, wire(gateway) as client:
        client.send(post(chat(model="ears")))
        while {"wake": "ears"} not in gateway.heard:
            pass
        gateway.set_fleet(fleet_of([engine.url], models=(sleeper,)))
        assert client.answer().status == 200


# --- the admin API


@contextmanager
def admin_api(state_dir: Path) -> Iterator[list[bytes]]:
    """A control plane that answers every request with a 200, and keeps what it got."""
    got: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state_dir / "admin.sock"))
        listener.listen()

        def serve() -> None:
            try:
                while True:
                    with listener.accept()[0] as connection:
                        got.append(connection.recv(65536))
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield got
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_admin_api_is_forwarded_for_who_has_the_token(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway, admin_api(tmp_path) as got:
        status, headers, body = gateway.administer("POST", "/admin/stop?id=1", {"a": 1})
        assert (status, body) == (200, b"{}")
        assert got[0].startswith(b"POST /admin/stop?id=1 HTTP/1.1\r\n")
        assert got[0].endswith(b'{"a": 1}')
        assert b"authorization" not in got[0].lower()
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a person's tool looks no different from a proxy on this machine
        {"Host": "127.0.0.1", "Connection": "close"},  # as nginx passes on what anybody asks
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Authorization": "Bearer EMPTY"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer " + "0" * 64},
        {"x-api-key": "\xff"},
    ],
)
def test_nobody_else_finds_an_admin_api(tmp_path: Path, headers: dict[str, str]) -> None:
    with running_gateway(tmp_path) as gateway, admin_api(tmp_path) as got:
        admin_token.ensure(tmp_path)
        assert gateway.ask("POST", "/admin/stop", {}, headers)[0] == 404
        assert gateway.ask("GET", "//admin/./status", None, headers)[0] == 404
        assert not got


def test_where_there_is_no_token_nobody_has_it(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway, admin_api(tmp_path) as got:
        (tmp_path / "admin-token").write_text("")
        for headers in ({}, {"Authorization": "Bearer "}, {"x-api-key": ""}):
            assert gateway.ask("GET", "/admin/status", None, headers)[0] == 404
        assert not got


def test_without_a_control_plane_the_admin_api_says_so(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        status, _, body = gateway.administer("GET", "/admin/status")
        assert (status, json.loads(body)["error"]["code"]) == (503, "control_plane_down")


# --- what engines answer


def test_an_engines_refusal_is_passed_on_once(gateway: GatewayProcess, engine: EngineProcess) -> None:
    engine.control(clear=True)
    status, headers, body = gateway.chat(fault="status:429:3")
    assert (status, headers["retry-after"]) == (429, "3")
    assert json.loads(body)["error"]["code"] == "engine_full"
    assert b"faulty engine" not in body
    assert len(engine.seen(ended=1)) == 1


def test_the_replica_that_answered_is_named(gateway: GatewayProcess) -> None:
    assert gateway.chat()[1]["x-autoglm-replica"] == "r0"


def test_usage_is_counted_streamed_or_not(tmp_path: Path) -> None:
    with running_engine("--chunks", "4") as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        gateway.chat()
        gateway.chat(stream=True, stream_options={"include_usage": True})
        gateway.wait_for_metric("autoglm_tokens_total", 8, kind="completion")
        assert gateway.metric("autoglm_tokens_total", kind="completion") == 8
        assert gateway.metric("autoglm_tokens_total", kind="prompt") > 0


def test_each_request_has_an_id_that_reaches_the_engine_and_the_answer(
    gateway: GatewayProcess, engine: EngineProcess
) -> None:
    before = len(engine.seen())
    made = [gateway.chat(stream=stream)[1]["x-request-id"] for stream in (False, True)]
    made.append(gateway.ask("POST", "/v1/chat/completions", b"{")[1]["x-request-id"])
    assert len(set(made)) == 3
    told = [dict(seen["headers"])["x-request-id"] for seen in engine.seen(ended=before + 2)[before:]]
    assert told == made[:2]


def test_what_is_asked_of_another_replica_has_the_same_name_and_a_number(tmp_path: Path, capfd: Any) -> None:
    with (
        running_engine("--fault", "reset:0") as one,
        running_engine() as two,
        running_gateway(tmp_path, [one.url, two.url]) as gateway,
    ):
        for _ in range(2):  # one of them begins at the first
            _, headers, _ = gateway.ask("POST", "/v1/chat/completions", chat(), {"X-Request-Id": "mine"})
            assert headers["x-request-id"] == "mine"
        told = [{dict(seen["headers"])["x-request-id"] for seen in each.seen()} for each in (one, two)]
    assert told[0] == {"mine"}
    assert "mine-2" in told[1] <= {"mine", "mine-2"}
    assert "did not answer request mine " in capfd.readouterr().err
