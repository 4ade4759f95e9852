"""Model facts from a hub: a small server that speaks enough of its protocol, and counts what is fetched."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.errors import ModelError
from autoglm_serve.probe.model_facts import from_hub
from tests.probe.test_model_facts import QWEN3

COMMIT = "0" * 40
DATA_BYTES = 3_000_000


def weights() -> bytes:
    header = json.dumps(
        {
            "model.layers.0.mlp.up_proj.weight": {
                "dtype": "BF16",
                "shape": [1000, 1500],
                "data_offsets": [0, DATA_BYTES],
            }
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(DATA_BYTES)


def test_a_hub_that_cannot_be_reached_is_one_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(ModelError, match="cannot be read from the hub") as caught:
            from_hub("a/b", endpoint=f"http://127.0.0.1:{port}", cache=tmp_path)
    assert f"127.0.0.1:{port} cannot be reached" in caught.value.why
    assert capfd.readouterr().err == ""


class Hub(ThreadingHTTPServer):
    """Serves the files of one repository, a/b."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.sent_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        name = self.path.partition("/resolve/main/")[2].partition("?")[0]
        content = self.server.files.get(name)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if "/a/b/" in self.path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        part = content
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.server.sent_bytes += len(part)
            self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_headers_are_read_without_the_weights(tmp_path: Path) -> None:
    files = {"config.json": json.dumps(QWEN3).encode(), "model.safetensors": weights()}
    with hub(files) as server:
        facts = from_hub("a/b", endpoint=server.url, cache=tmp_path)
        assert server.sent_bytes < DATA_BYTES / 2
    assert facts.from_headers
    assert facts.parameters == 1_500_000
    assert facts.text.layers == 28


def test_a_repository_without_safetensors(tmp_path: Path) -> None:
    with (
        hub({"config.json": json.dumps(QWEN3).encode()}) as server,
        pytest.raises(ModelError, match="no safetensors"),
    ):
        from_hub("a/b", endpoint=server.url, cache=tmp_path)


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with hub({}) as server, pytest.raises(ModelError, match="cannot be read from the hub"):
        from_hub("c/d", endpoint=server.url, cache=tmp_path)


def test_a_name_that_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        from_hub("a/b/c", cache=tmp_path)
