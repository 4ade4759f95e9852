"""`autoglm doctor` as a person types it, on this machine and against addresses that are broken."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from autoglm_serve.cli.main import main
from tests.fakes.golden_model import Serving, served


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[dict[str, str]]]:
    status = main(["doctor", "--json", *argv])
    return status, json.loads(capsys.readouterr().out)["symptoms"]


@contextmanager
def a_silent_port() -> Iterator[int]:
    with closing(socket.socket()) as ours:
        ours.bind(("127.0.0.1", 0))
        yield ours.getsockname()[1]


def test_an_address_that_refuses_connections_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with a_silent_port() as port:
        status, found = told(capsys, "--url", f"http://127.0.0.1:{port}")
    assert status == 2
    assert "refused" in found[0]["evidence"]


def test_a_service_that_is_well_has_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with served(Serving()) as url:
        assert told(capsys, "--url", url) == (0, [])


class _Buffering(BaseHTTPRequestHandler):
    """A proxy that keeps a stream until it is whole."""

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._send(b'{"data": [{"id": "m"}]}')

    def do_POST(self) -> None:
        threading.Event().wait(0.3)  # as long as the engine behind it writes
        self._send(b'data: {"choices": []}\n\n' * 40 + b"data: [DONE]\n\n")


def test_a_stream_that_arrives_in_one_piece_points_to_a_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Buffering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        status, found = told(capsys, "--url", f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert status == 1
    assert "proxy_buffering off" in found[0]["remedy"]


def test_a_model_that_is_not_there_is_told_as_serve_would(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    with a_silent_port() as port:
        status, found = told(capsys, "--port", str(port), str(tmp_path / "model.gguf"))
    assert status == 2
    assert any("model.gguf" in symptom["what"] for symptom in found)


def test_a_port_that_is_taken_is_told_with_who_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        status, found = told(capsys, "--port", str(port))
    assert status == 2
    assert any(f"Port {port} is taken" in symptom["what"] for symptom in found)
