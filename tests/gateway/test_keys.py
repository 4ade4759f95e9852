"""Keys at the door of a real worker: what gets in, what does not, and what changes while it runs."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.model import Capability
from autoglm_serve.deploy.attach import attach
from autoglm_serve.gateway.settings import KeySettings
from autoglm_serve.keys import keys_file
from autoglm_serve.keys.key import Key, Limits, Scope, digest
from autoglm_serve.runtime.private_file import replace_whole
from autoglm_serve.usage.daybook import Daybooks
from tests.fakes.engine_process import EngineProcess
from tests.gateway.gateway_process import MODEL, GatewayProcess, fleet_of, running_gateway
from tests.gateway.raw_http import chat, post, wire

pytestmark = pytest.mark.process
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def key(name: str, **more: object) -> Key:
    return Key(id=f"k-{name}", sha256=digest(name.encode()), **more)  # type: ignore[arg-type]


@contextmanager
def guarded(tmp_path: Path, engine: EngineProcess, *keys: Key) -> Iterator[tuple[GatewayProcess, Path]]:
    path = tmp_path / "keys.jsonl"
    for each in keys:
        keys_file.add(path, each)
    other = replace(MODEL, names=("other", "another"), capabilities=frozenset({Capability.CHAT}))
    fleet = fleet_of([engine.url], models=(MODEL, other))
    with running_gateway(tmp_path, fleet=fleet, keys=KeySettings(files=(path,))) as gateway:
        yield gateway, path


def asked(
    gateway: GatewayProcess,
    secret: str,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    **fields: object,
) -> tuple[int, str]:
    body = {**CHAT, **fields} if method == "POST" else None
    status, _, body_bytes = gateway.ask(method, path, body, {"Authorization": f"Bearer {secret}"})
    error = json.loads(body_bytes).get("error") if status >= 400 else None
    return status, error["code"] if error else ""


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to hold"


def test_a_key_comes_in_each_way_that_clients_know(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine, key("good")) as (gateway, _):
        for headers in ({"Authorization": "Bearer good"}, {"x-api-key": "good"}, {"API-Key": "good"}):
            assert gateway.ask("POST", "/v1/chat/completions", CHAT, headers)[0] == 200


ROUND: dict[str, tuple[str, dict[str, str]]] = {
    "no key": ("/v1/chat/completions", {}),
    "EMPTY": ("/v1/chat/completions", {"Authorization": "Bearer EMPTY"}),
    "in the query": ("/v1/chat/completions?key=good&api_key=good&api-key=good", {}),
    "other case": ("/v1/chat/completions", {"Authorization": "Bearer GOOD"}),
    "a blank in it": ("/v1/chat/completions", {"Authorization": "Bearer go od"}),
    "another scheme": ("/v1/chat/completions", {"Authorization": "Basic good"}),
    "no scheme": ("/v1/chat/completions", {"Authorization": "good"}),
    "a prefix": ("/v1/chat/completions", {"Authorization": "Bearer goo"}),
    "its hash": ("/v1/chat/completions", {"Authorization": f"Bearer {digest(b'good').hex()}"}),
    "its id": ("/v1/chat/completions", {"Authorization": "Bearer k-good"}),
    "full width": ("/v1/chat/completions", {"x-api-key": "\xef\xbd\x87ood"}),
    "in a cookie": ("/v1/chat/completions", {"Cookie": "api-key=good"}),
    "underscores": ("/v1/chat/completions", {"x_api_key": "good"}),
    "forwarded": ("/v1/chat/completions", {"X-Forwarded-Authorization": "Bearer good", "X-Real-IP": "::1"}),
    "two that differ": ("/v1/chat/completions", {"Authorization": "Bearer good", "x-api-key": "bad"}),
    "slashes": ("//v1//chat//completions", {}),
    "percents": ("/v1/chat%2Fcompletions", {}),
    "no version": ("/chat/completions", {}),
    "another method's name": ("/v1/chat/completions", {"X-HTTP-Method-Override": "GET"}),
    "an upgrade": ("/v1/chat/completions", {"Upgrade": "websocket", "Connection": "Upgrade"}),
    "revoked": ("/v1/chat/completions", {"Authorization": "Bearer revoked"}),
    "expired": ("/v1/chat/completions", {"Authorization": "Bearer expired"}),
}


def test_there_is_no_way_round(tmp_path: Path, engine: EngineProcess) -> None:
    keys = (key("good"), key("revoked", revoked_s=1), key("expired", expires_s=1))
    with guarded(tmp_path, engine, *keys) as (gateway, _):
        engine.control(clear=True)
        got = {name: gateway.ask("POST", path, CHAT, headers)[0] for name, (path, headers) in ROUND.items()}
        assert got == dict.fromkeys(ROUND, 401)
        assert engine.seen() == []


def test_each_api_says_it_in_its_own_words(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine, key("good")) as (gateway, _):
        status, headers, body = gateway.ask("POST", "/v1/chat/completions", CHAT)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert json.loads(body)["error"]["code"] == "missing_api_key"
        status, _, body = gateway.ask("POST", "/v1/messages", CHAT, {"x-api-key": "bad"})
        said = json.loads(body)
        assert (status, said["type"], said["error"]["type"]) == (401, "error", "authentication_error")


def test_a_key_opens_its_models_paths_and_pages_alone(tmp_path: Path, engine: EngineProcess) -> None:
    keys = (
        key("other", models=("another",)),
        key("speech", paths=("/v1/audio/*",)),
        key("scrape", scopes=frozenset({Scope.METRICS})),
        key("plain"),
    )
    with guarded(tmp_path, engine, *keys) as (gateway, _):
        assert asked(gateway, "other", model="demo") == (404, "model_not_found")
        assert asked(gateway, "other", model="alias") == (404, "model_not_found")
        assert asked(gateway, "speech") == (403, "not_allowed")
        assert asked(gateway, "scrape") == (403, "not_allowed")
        assert asked(gateway, "plain", "/metrics", "GET") == (403, "not_allowed")
        assert asked(gateway, "nobody", "/metrics", "GET") == (401, "invalid_api_key")
        assert asked(gateway, "other", "/v1/models/demo", "GET") == (404, "model_not_found")
        bearer = {"Authorization": "Bearer other"}
        listed = json.loads(gateway.ask("GET", "/v1/models", None, bearer)[2])["data"]
        assert [card["id"] for card in listed] == ["other", "another"]
        unknown = gateway.ask("POST", "/v1/chat/completions", {**CHAT, "model": "demo"}, bearer)[2]
        assert b"alias" not in unknown
        scrape = {"Authorization": "Bearer scrape"}
        assert gateway.ask("GET", "/metrics", None, scrape)[0] == 200
        assert gateway.ask("GET", "/metrics")[0] == 401
        assert gateway.ask("GET", "/v1/models")[0] == 401
        assert b"demo" not in gateway.ask("GET", "/")[2]
        assert [gateway.ask("GET", path)[0] for path in ("/health", "/ready", "/version")] == [200] * 3


def test_a_clients_key_does_not_administer(tmp_path: Path, engine: EngineProcess) -> None:
    admin = key("admin", scopes=frozenset({Scope.ADMIN}))
    with guarded(tmp_path, engine, key("good"), admin) as (gateway, _):
        for path in ("/admin/status", "/admin/../admin/status", "//admin/status", "/admin%2Fstatus"):
            assert asked(gateway, "good", path, "GET")[0] == 404
        assert asked(gateway, "admin", "/admin/status", "GET") == (503, "control_plane_down")
        assert asked(gateway, "admin") == (403, "not_allowed")


def test_a_large_body_without_a_key_is_refused_before_it_comes(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine, key("good")) as (gateway, _), wire(gateway) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n"
        assert client.send(head).answer().status == 401


def test_keys_come_go_and_change_while_it_serves(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine) as (gateway, path):
        assert asked(gateway, "EMPTY")[0] == 200
        keys_file.add(path, key("first"))
        until(lambda: asked(gateway, "EMPTY")[0] == 401)
        assert asked(gateway, "first")[0] == 200
        keys_file.add(path, key("second"))
        until(lambda: asked(gateway, "second")[0] == 200)
        keys_file.change(path, "k-first", lambda each: replace(each, revoked_s=1))
        until(lambda: asked(gateway, "first")[0] == 401)
        path.write_text("{")
        replace_whole(tmp_path / "moved", path.read_bytes())
        path.unlink()
        assert asked(gateway, "second")[0] == 200
        assert asked(gateway, "EMPTY")[0] == 401


def test_without_keys_none_is_asked_for_and_none_is_passed_on(
    gateway: GatewayProcess, engine: EngineProcess
) -> None:
    engine.control(clear=True)
    for headers in ({}, {"Authorization": "Bearer EMPTY"}, {"x-api-key": "a", "Authorization": "Bearer b"}):
        assert gateway.ask("POST", "/v1/chat/completions", CHAT, headers)[0] == 200
    for seen in engine.seen(ended=3):
        assert not {"authorization", "x-api-key", "api-key"} & {name for name, _ in seen["headers"]}


def test_an_upstream_gets_the_key_that_is_its_own(tmp_path: Path, engine: EngineProcess) -> None:
    engine.control(clear=True)
    (tmp_path / "upstream").write_text("theirs\n")
    keys = KeySettings(upstream=tmp_path / "upstream")
    with running_gateway(tmp_path, fleet=fleet_of([engine.url], engine="external"), keys=keys) as gateway:
        with wire(gateway) as client:
            assert client.send(post(chat("x"))).answer().status == 200
        gateway.ask(
            "POST", "/v1/chat/completions", CHAT, {"Authorization": "Bearer mine", "x-api-key": "mine"}
        )
    for seen in engine.seen(ended=2):
        assert [
            value for _, value in seen["headers"] if value in ("Bearer theirs", "Bearer mine", "mine")
        ] == ["Bearer theirs"]


# --- limits


def limited(tmp_path: Path, engine: EngineProcess, **limits: int) -> Any:
    return guarded(tmp_path, engine, key("good", limits=Limits(**limits)), key("free"))


def test_a_limit_is_told_in_the_headers_that_clients_know(tmp_path: Path, engine: EngineProcess) -> None:
    bearer = {"Authorization": "Bearer good"}
    with limited(tmp_path, engine, requests_per_minute=2, tokens_per_minute=100_000) as (gateway, _):
        for left in ("1", "0"):
            status, headers, _ = gateway.ask("POST", "/v1/chat/completions", CHAT, bearer)
            assert (status, headers["x-ratelimit-remaining-requests"]) == (200, left)
            assert headers["x-ratelimit-limit-requests"] == "2"
            assert headers["x-ratelimit-reset-requests"].endswith("s")
            assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 100_000
        status, headers, body = gateway.ask("POST", "/v1/chat/completions", CHAT, bearer)
        error = json.loads(body)["error"]
        assert (status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "requests")
        assert 50 <= int(headers["retry-after"]) <= 70
        status, _, body = gateway.ask(
            "POST", "/v1/messages", {**CHAT, "max_tokens": 8}, {"x-api-key": "good"}
        )
        assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
        assert asked(gateway, "free")[0] == 200
        assert (
            "x-ratelimit-limit-requests"
            not in gateway.ask("POST", "/v1/chat/completions", CHAT, {"x-api-key": "free"})[1]
        )


def test_what_an_engine_has_counted_is_what_a_request_took(tmp_path: Path, engine: EngineProcess) -> None:
    with limited(tmp_path, engine, budget_tokens=1000) as (gateway, _):
        took = json.loads(gateway.ask("POST", "/v1/chat/completions", CHAT, {"x-api-key": "good"})[2])[
            "usage"
        ]["total_tokens"]
        let_in = 1
        while (got := asked(gateway, "good"))[0] == 200:
            let_in += 1
        assert got == (429, "insufficient_quota")
        likely = 2 + 256  # what the next one is charged in advance
        assert 1000 - likely - took < let_in * took <= 1000


def test_requests_at_the_same_time_are_counted_until_they_end(tmp_path: Path, engine: EngineProcess) -> None:
    with limited(tmp_path, engine, concurrency=1) as (gateway, _):
        with wire(gateway) as first:
            first.send(post(chat(stream=True, fault="hang:1"), "/v1/chat/completions", "x-api-key: good"))
            first.answer(head_only=True)
            assert asked(gateway, "good") == (429, "rate_limit_exceeded")
        until(lambda: asked(gateway, "good")[0] == 200)


def test_a_request_that_is_refused_costs_nothing(tmp_path: Path, engine: EngineProcess) -> None:
    with limited(tmp_path, engine, requests_per_day=1, tokens_per_day=1000) as (gateway, _):
        for _ in range(3):
            assert asked(gateway, "good", model="none")[0] == 404
            assert asked(gateway, "good", max_tokens="x")[0] == 400
        assert asked(gateway, "good")[0] == 200


def test_a_stream_ends_when_its_key_is_revoked(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine, key("good"), key("other")) as (gateway, path), wire(gateway) as client:
        client.send(post(chat(stream=True, fault="hang:1"), "/v1/chat/completions", "x-api-key: good"))
        assert client.line().startswith(b"HTTP/1.1 200")
        keys_file.change(path, "k-good", lambda each: replace(each, revoked_s=1))
        while b"invalid_api_key" not in (line := client.line()):
            assert line, "it ended without a word"
        assert asked(gateway, "other")[0] == 200


def test_usage_is_noted_when_a_request_ends(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine, key("good", owner="ann")) as (gateway, _):
        said = json.loads(gateway.ask("POST", "/v1/chat/completions", CHAT, {"x-api-key": "good"})[2])[
            "usage"
        ]
        gateway.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True}, {"x-api-key": "good"})
        gateway.ask("POST", "/v1/chat/completions", CHAT)
        daybooks = Daybooks(tmp_path)
        until(lambda: sum(len(entry.records) for entry in daybooks.unread({})) == 2)
        gateway.process.kill()
        [whole, stream] = next(iter(daybooks.unread({}))).records
        assert whole[1:5] == ("k-good", "ann", "demo", True)
        assert whole[5:] == (said["prompt_tokens"], said["completion_tokens"], False)
        assert (stream.completion_tokens > 0, stream.estimated) == (True, True)


def test_a_service_attaches_to_another_by_its_key(tmp_path: Path, engine: EngineProcess) -> None:
    with guarded(tmp_path, engine, key("good", models=("demo",))) as (gateway, _):
        url = f"http://127.0.0.1:{gateway.port}"
        (tmp_path / "key").write_text("good\n")
        with pytest.raises(ConfigError, match="without a key") as refused:
            asyncio.run(attach([url]))
        assert "--upstream-key-file" in refused.value.next_step
        for text in ("", "two\nlines", "\xff"):
            (tmp_path / "other").write_bytes(text.encode("latin-1"))
            with pytest.raises(ConfigError, match="holds no key"):
                asyncio.run(attach([url], (), tmp_path / "other"))
        assert asyncio.run(attach([url], ("demo",), tmp_path / "key")).upstream_model == "demo"
