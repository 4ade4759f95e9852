"""A Hugging Face hub of one's own: as much of its protocol as its library needs, and faults on request.

with hub_server({"org/name": {"model.gguf": b"…"}}) as hub:
    HuggingFace(endpoint=hub.url, cache=tmp_path)
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_FILES = (".gguf", ".safetensors")

Repositories = Mapping[str, Mapping[str, bytes]]


@dataclass
class HubServer:
    """What it holds, what it was asked, and how it misbehaves."""

    repositories: Repositories
    url: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of each request."""
    gated: set[str] = field(default_factory=set)
    cut_at_bytes: int | None = None
    """The next download of a large file breaks off after so many bytes."""
    lie_about: str = ""
    """A file whose checksum it gives wrongly."""
    names_only: bool = False
    """It lists names without sizes or checksums, as some mirrors do."""
    claims_bytes: dict[str, int] = field(default_factory=dict)
    """Sizes that it gives instead of the real ones."""
    broken: bool = False
    """Every request gets a 500."""

    def downloads(self) -> list[str]:
        return [
            path.rsplit("/", 1)[1]
            for method, path, _ in self.asked
            if method == "GET" and "/resolve/" in path
        ]

    def sha256(self, name: str, data: bytes) -> str:
        return hashlib.sha256(data + (b"x" if name == self.lie_about else b"")).hexdigest()


@contextmanager
def hub_server(repositories: Repositories) -> Iterator[HubServer]:
    """It listens on a free port until the block ends."""
    state = HubServer(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(state: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

        def _answer(self, *, body: bool) -> None:
            state.asked.append((self.command, self.path, self.headers.get("Range")))
            path = self.path.split("?")[0]
            if state.broken:
                return self._send(500, b"{}")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                return self._information(found[1])
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
                return self._tree(found[1])
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                return self._file(found[1], found[2], body=body)
            return self._send(404, b"{}")

        def _information(self, repository: str) -> None:
            files = state.repositories.get(repository)
            if files is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            siblings = [self._card(name, data) for name, data in files.items()]
            card = {"id": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            return self._send(200, json.dumps({**card, "downloads": 0, "likes": 0, "gated": False}).encode())

        def _card(self, name: str, data: bytes) -> dict[str, Any]:
            if state.names_only:
                return {"rfilename": name}
            size = state.claims_bytes.get(name, len(data))
            card: dict[str, Any] = {"rfilename": name, "size": size, "blobId": _blob(data)}
            if name.endswith(LARGE_FILES):
                sha256 = state.sha256(name, data)
                card["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            return card

        def _tree(self, repository: str) -> None:
            files = state.repositories.get(repository, {})
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _blob(data)}
                for name, data in files.items()
            ]
            return self._send(200, json.dumps(entries).encode())

        def _file(self, repository: str, name: str, *, body: bool) -> None:
            if repository in state.gated:
                return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            data = state.repositories.get(repository, {}).get(name)
            if data is None:
                return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_blob(data)}"', "Accept-Ranges": "bytes"}
            if name.endswith(LARGE_FILES):
                headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
                headers["X-Linked-Size"] = str(len(data))
            start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(206 if start else 200, data[start:], headers, body=body, large=True)

        def _send(
            self,
            status: int,
            data: bytes,
            headers: Mapping[str, str] | None = None,
            *,
            body: bool = True,
            large: bool = False,
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body and self.command != "HEAD":
                self._write(data, large=large)

        def _write(self, data: bytes, *, large: bool) -> None:
            if large and state.cut_at_bytes is not None and len(data) > state.cut_at_bytes:
                data, state.cut_at_bytes = data[: state.cut_at_bytes], None
                self.close_connection = True
            self.wfile.write(data)

    return Handler


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
