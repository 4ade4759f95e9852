"""nginx and HAProxy in front, as Debian has them: streams come piece by piece, silence holds, uploads pass.

`sh run_tests.sh --proxies` installs both and runs this; docs/compatibility.md says what came of it.
"""

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from autoglm_serve.launch.ports import PortLease
from tests.fakes.engine_process import running_engine
from tests.fakes.pictures import image
from tests.gateway.gateway_process import running_gateway

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("AUTOGLM_TEST_PROXIES"), reason="run_tests.sh --proxies"),
]

PATIENCE_S = 10.0
SILENCE_S = 70.0
"""More than either lets a connection be silent."""


def nginx(folder: Path, port: int, behind: int, more: str = "") -> list[str]:
    config = folder / "nginx.conf"
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"user root; daemon off; pid {folder}/pid; error_log {folder}/error;\n"
        "events {}\nhttp { access_log off;\n"
        f"{temporary}\nserver {{ listen 127.0.0.1:{port} reuseport; {more}\n"
        f"location / {{ proxy_pass http://127.0.0.1:{behind}; }} }} }}\n"
    )
    return ["nginx", "-c", str(config)]


def nginx_for_uploads(folder: Path, port: int, behind: int) -> list[str]:
    return nginx(folder, port, behind, "client_max_body_size 64m;")


def haproxy(folder: Path, port: int, behind: int) -> list[str]:
    """With the times of Debian's /etc/haproxy/haproxy.cfg."""
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout connect 5000\n timeout client 50000\n timeout server 50000\n"
        f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:{behind}\n"
    )
    return ["haproxy", "-f", str(config)]


Proxy = Callable[[Path, int, int], list[str]]


@contextmanager
def behind(proxy: Proxy, folder: Path, *engine_flags: str) -> Iterator[int]:
    """The port of a proxy in front of a gateway in front of an engine."""
    with (
        running_engine(*engine_flags) as engine,
        running_gateway(folder, [engine.url]) as gateway,
        PortLease() as lease,
    ):
        argv = proxy(folder, lease.port, gateway.port)
        with subprocess.Popen([shutil.which(argv[0]) or argv[0], *argv[1:]]) as process:
            try:
                _listens(lease.port)
                yield lease.port
            finally:
                process.terminate()


def _listens(port: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
    raise AssertionError("the proxy does not listen")


@contextmanager
def asked(port: int, body: object) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120.0)
    try:
        data = json.dumps(body)
        connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
        yield connection.getresponse()
    finally:
        connection.close()


def streamed(content: object = "hello") -> dict[str, object]:
    return {"model": "demo", "stream": True, "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_a_stream_comes_piece_by_piece(proxy: Proxy, tmp_path: Path) -> None:
    flags = ("--chunks", "8", "--delay-s", "0.25")
    with behind(proxy, tmp_path, *flags) as port, asked(port, streamed()) as reply:
        came_s = [time.monotonic() for line in reply if line.startswith(b"data:")]
        assert came_s[-1] - came_s[0] > 1.0  # all at once where it is kept to its end


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_a_minute_of_silence_holds(proxy: Proxy, tmp_path: Path) -> None:
    flags = ("--chunks", "4", "--first-delay-s", str(SILENCE_S))
    with behind(proxy, tmp_path, *flags) as port, asked(port, streamed()) as reply:
        body = reply.read()
        assert (reply.status, b"tok3" in body, body.count(b": waiting")) >= (200, True, 6)
        assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("proxy", "status"), [(nginx, 413), (nginx_for_uploads, 200), (haproxy, 200)])
def test_a_picture_of_twenty_megabytes_passes_where_it_may(proxy: Proxy, status: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    colours = [Image.effect_noise((2300, 2200), 200) for _ in range(3)]
    Image.merge("RGB", colours).save(out, "PNG", compress_level=0)
    url = "data:image/png;base64," + b64encode(out.getvalue()).decode()
    assert len(url) > 20_000_000
    with behind(proxy, tmp_path, "--chunks", "4") as port:
        try:
            with asked(port, streamed([image(url)])) as reply:
                assert reply.status == status
        except (BrokenPipeError, ConnectionResetError):  # nginx answers and closes while it is sent
            assert status == 413
