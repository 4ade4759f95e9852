"""Whoever asks a service that runs gets its answer, or what is wrong and what to do about it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from autoglm_serve.cli.main import main
from autoglm_serve.cli.running_service import RunningService
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import Unreachable
from autoglm_serve.core.status import ServiceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    body: bytes
    status: int = 200


@contextmanager
def answering(reply: Reply) -> Iterator[tuple[str, list[str | None]]]:
    """The address of a server that says this to everything, and the keys that it was sent."""
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            keys.append(self.headers.get("authorization"))
            self.send_response(reply.status)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", keys
        finally:
            server.shutdown()
            thread.join()


def test_the_address_of_a_service_that_is_away_is_one_that_can_be_called() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unreachable) as failed:
        RunningService.of(Options(host="::1", port=port)).status(timeout_s=5)
    assert f"http://[::1]:{port}" in failed.value.what
    assert "--host and --port" in failed.value.next_step


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"url": 3}', b"null"])
def test_what_is_no_service_is_told_apart_and_is_no_traceback(body: bytes) -> None:
    with answering(Reply(body=body)) as (url, _), pytest.raises(Unreachable, match="no service"):
        RunningService(url).status(timeout_s=5)


def test_a_status_is_a_value_and_all_that_was_said() -> None:
    said = {"url": "u", "version": "9", "models": [], "replicas": [], "mood": "good"}
    with answering(Reply(body=json.dumps(said).encode())) as (url, keys):
        assert RunningService(url + "/v1/").status(timeout_s=5) == (ServiceStatus(url="u", version="9"), said)
    assert keys == [None]


@pytest.mark.parametrize(
    ("status", "path", "next_step"),
    [
        (404, "/admin/restart", "as the account that it runs as"),
        (409, "/admin/restart", "`autoglm status`"),
        (503, "/admin/restart", "Start it with the flags of before"),
        (503, "/v1/chat/completions", "`autoglm status`"),
    ],
)
def test_a_refusal_is_told_in_its_own_words_with_what_to_do(status: int, path: str, next_step: str) -> None:
    refused = Reply(body=b'{"error": {"message": "not today"}}', status=status)
    with answering(refused) as (url, _), pytest.raises(Unreachable, match="does not do that") as failed:
        RunningService(url).ask("POST", path, {})
    assert failed.value.why == "not today"
    assert next_step in failed.value.next_step


def test_a_stream_is_shown_piece_by_piece_and_its_error_is_told() -> None:
    events = [{"choices": [{"delta": {"content": word}}]} for word in ("tap", " here")]
    lines = [*map(json.dumps, events), json.dumps({"error": {"message": "lost"}})]
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    with answering(Reply(body=body)) as (url, keys):
        pieces = RunningService(url, "sk-1").stream("/v1/chat/completions", {})
        assert [next(pieces), next(pieces)] == ["tap", " here"]
        with pytest.raises(Unreachable) as failed:
            next(pieces)
    assert failed.value.why == "lost"
    assert keys == ["Bearer sk-1"]


@pytest.mark.parametrize("body", [b'{"data": []}', b"<html>", b"[]"])
def test_who_does_not_say_what_it_serves_is_asked_for_by_name(body: bytes) -> None:
    with answering(Reply(body=body)) as (url, _), pytest.raises(Unreachable) as failed:
        RunningService(url).first_model()
    assert failed.value.next_step == "Name one with --model."


@pytest.mark.parametrize(
    "verb",
    [
        ("chat", "hello"),
        ("verify",),
        ("doctor",),
        ("bench", "--model", "m"),
        ("bench",),
    ],
)
@pytest.mark.parametrize("port", ["99999", "abc"])
def test_a_port_that_is_none_is_told_without_a_traceback(
    verb: tuple[str, ...], port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb[0], "--url", f"http://127.0.0.1:{port}", *verb[1:]]) != 0
    told = capsys.readouterr()
    assert f"127.0.0.1:{port}" in told.out + told.err
