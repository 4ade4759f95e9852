"""Ollama's API at a real gateway: lines of JSON, its own errors, and streams that stay whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine_process import EngineProcess, running_engine
from tests.fakes.pictures import png
from tests.gateway.gateway_process import GatewayProcess, running_gateway

pytestmark = pytest.mark.process

ASK = [{"role": "user", "content": "hello"}]
TEXT = "tok0 tok1 tok2 tok3 tok4 tok5 tok6 tok7 "


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[EngineProcess, EngineProcess]]:
    with running_engine("--chunks", "8") as first, running_engine("--chunks", "8") as second:
        yield first, second


@pytest.fixture
def gateway(engines: tuple[EngineProcess, EngineProcess], tmp_path: Path) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path, [engine.url for engine in engines]) as process:
        yield process


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def test_a_chat_is_lines_of_json_and_the_last_says_what_it_took(gateway: GatewayProcess) -> None:
    status, headers, body = gateway.ask("POST", "/api/chat", {"model": "demo:latest", "messages": ASK})
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert headers["x-accel-buffering"] == "no"
    *pieces, last = lines(body)
    assert "".join(piece["message"]["content"] for piece in pieces) == TEXT
    assert all(piece["model"] == "demo:latest" and piece["done"] is False for piece in pieces)
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")
    assert last["eval_count"] == 8
    assert min(last["prompt_eval_count"], last["total_duration"], last["eval_duration"]) > 0


def test_an_answer_in_one_piece_and_a_generation(gateway: GatewayProcess) -> None:
    asked = {"model": "demo", "stream": False}
    chat = json.loads(gateway.ask("POST", "/api/chat", {**asked, "messages": ASK})[2])
    assert (chat["message"]["content"], chat["done"], chat["eval_count"]) == (TEXT, True, 8)
    generated = json.loads(gateway.ask("POST", "/api/generate", {**asked, "prompt": "hello"})[2])
    assert (generated["response"], generated["done_reason"]) == (TEXT, "stop")
    *pieces, last = lines(gateway.ask("POST", "/api/generate", {"prompt": "hello"})[2])
    assert ("".join(piece["response"] for piece in pieces), last["done"]) == (TEXT, True)


def test_a_stream_whose_replica_dies_goes_on(
    gateway: GatewayProcess, engines: tuple[EngineProcess, EngineProcess]
) -> None:
    for engine in engines[:1]:
        engine.control(fault="reset:3", times=1)
    for _ in range(2):  # one of the two meets it
        *pieces, last = lines(gateway.ask("POST", "/api/chat", {"model": "demo", "messages": ASK})[2])
        assert "".join(piece["message"]["content"] for piece in pieces) == TEXT
        assert last["eval_count"] == 8
    assert gateway.metric("autoglm_recoveries_total") == 1


def test_a_stream_that_cannot_go_on_ends_in_an_error_of_its_own_form(tmp_path: Path) -> None:
    with running_engine("--chunks", "8") as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        engine.control(fault="reset:3", times=9)
        *pieces, last = lines(gateway.ask("POST", "/api/chat", {"model": "demo", "messages": ASK})[2])
        assert pieces
        assert list(last) == ["error"]


def test_tools_pictures_and_formats(gateway: GatewayProcess) -> None:
    tap = {"name": "tap", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    tools = [{"type": "function", "function": tap}]
    asked: dict[str, Any] = {"model": "demo", "messages": ASK, "tools": tools}
    asked |= {"stream": False, "tool_choice": "required"}
    said = json.loads(gateway.ask("POST", "/api/chat", asked)[2])
    [call] = said["message"]["tool_calls"]
    assert (call["function"], said["done_reason"]) == ({"name": "tap", "arguments": {"x": 1}}, "stop")
    look = [{"role": "user", "content": "look", "images": [png().partition(",")[2]]}]
    assert gateway.ask("POST", "/api/chat", {"model": "demo", "messages": look})[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("chat", {"model": "nobody", "messages": ASK}, 404, "The model 'nobody' is not served here"),
        (
            "chat",
            {"messages": [{"role": "user", "content": "x", "images": ["bm8="]}]},
            400,
            "'messages[0].images[0]' is no PNG",
        ),
        ("chat", {"messages": ASK, "options": {"temperature": "hot"}}, 400, "'options.temperature' must be"),
        ("generate", {"prompt": "x", "template": "{{ .Prompt }}"}, 400, "'template' is not done here"),
        ("show", {"model": "nobody"}, 404, "model 'nobody' not found"),
        ("pull", {"model": "nobody"}, 404, "autoglm serve MODEL"),
        ("delete", {"model": "demo"}, 400, "changes models"),
        ("nothing", {}, 404, "There is no /api/nothing here"),
        ("chat", b"{", 400, "not valid JSON"),
    ],
)
def test_errors_are_in_ollamas_form(
    gateway: GatewayProcess, path: str, body: object, status: int, said: str
) -> None:
    got, headers, told = gateway.ask("POST", f"/api/{path}", body)
    assert (got, headers["content-type"]) == (status, "application/json")
    assert said in json.loads(told)["error"]


def test_models_are_listed_shown_and_said_to_be_loaded(gateway: GatewayProcess) -> None:
    tags = json.loads(gateway.ask("GET", "/api/tags")[2])["models"]
    assert [each["name"] for each in tags] == ["demo", "alias"]
    assert len(tags[0]["digest"]) == 64
    shown = json.loads(gateway.ask("POST", "/api/show", {"name": "demo:latest"})[2])
    assert {"completion", "vision"} <= set(shown["capabilities"])
    assert [each["name"] for each in json.loads(gateway.ask("GET", "/api/ps")[2])["models"]] == ["demo"]
    version = json.loads(gateway.ask("GET", "/api/version")[2])
    assert version["server"] == "autoglm-serve test"
    assert gateway.ask("POST", "/api/tags")[0] == 405
    assert gateway.ask("HEAD", "/api/version")[0] == 200
    pulled = lines(gateway.ask("POST", "/api/pull", {"model": "demo"})[2])
    assert pulled[-1] == {"status": "success"}


def test_nothing_to_say_is_the_model_loaded(gateway: GatewayProcess) -> None:
    [line] = lines(gateway.ask("POST", "/api/generate", {"model": "demo"})[2])
    assert (line["done_reason"], line["response"], line["done"]) == ("load", "", True)
    assert gateway.ask("POST", "/api/generate", {"model": "nobody"})[0] == 404


def test_a_refused_request_is_counted_once(gateway: GatewayProcess) -> None:
    gateway.ask("POST", "/api/chat", {"model": "nobody", "messages": ASK})
    gateway.ask("POST", "/api/generate", {"template": "x", "prompt": "x"})
    gateway.ask("POST", "/api/chat", {"model": "demo", "messages": ASK})
    gateway.wait_for_metric("autoglm_requests_total", 1, outcome="ok")
    assert gateway.metric("autoglm_requests_total", outcome="refused") == 2
