"""Media that clients name by address: who fetches them, from where, and what becomes of them."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.gateway.wire.limits import ConnectionLimits
from tests.fakes.pictures import png
from tests.gateway.gateway_process import GatewayProcess, running_gateway

pytestmark = pytest.mark.process

PNG = base64.b64decode(png(64, 64).partition(",")[2])


@dataclass
class Site:
    """A server of pictures, and an engine; what it was asked for."""

    port: int
    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """As an engine: the bodies that it was sent."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            what = self.path.partition("?")[0]
            if what == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.2:{found.port}/png")
                self.end_headers()
                return
            if what in ("/here", "/again"):
                self.send_response(302)
                self.send_header("Location", "/png" if what == "/here" else "/again")
                self.end_headers()
                return
            self.send_response(404 if what == "/none" else 200)
            if what == "/cut":
                self.send_header("Content-Length", "10000")
            if what == "/announced":
                self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            self.wfile.write(_CONTENT.get(what, PNG))

        def do_POST(self) -> None:
            found.told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            message = {"role": "assistant", "content": "seen"}
            body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Site(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def pictures() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture(scope="module")
def fetching(pictures: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    hosts = (f"127.0.0.1:{pictures.port}",)
    with running_gateway(
        tmp_path_factory.mktemp("fetching"), [pictures.url("")], media_hosts=hosts
    ) as gateway:
        yield gateway


_CONTENT = {"/secret": b"SECRET of an internal service", "/endless": PNG + bytes(9 << 20)}


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


SHAPES: dict[str, Any] = {
    "chat": lambda url: part(url),
    "a string": lambda url: {"type": "image_url", "image_url": url},
    "input_image": lambda url: {"type": "input_image", "image_url": url},
    "anthropic": lambda url: {"type": "image", "source": {"type": "url", "url": url}},
    "unknown type": lambda url: {"type": "whatever", "image_url": {"url": url}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gateway_fetches_and_the_engine_gets_the_picture(
    fetching: GatewayProcess, pictures: Site, shape: str
) -> None:
    before = len(pictures.asked)
    status, _, body = fetching.chat([SHAPES[shape](pictures.url("/png"))])
    assert status == 200, body
    assert pictures.asked[before:] == ["/png"]
    sent = pictures.told[-1]
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in sent
    assert "http://" not in sent


def test_a_redirect_to_an_allowed_host_is_followed(fetching: GatewayProcess, pictures: Site) -> None:
    assert fetching.chat([part(pictures.url("/here"))])[0] == 200


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/elsewhere", "nothing is fetched from there"),
        ("/again", "without end"),
        ("/secret", "no picture, sound or video"),
        ("/none", "answers 404"),
        ("/cut", "in the middle"),
        ("/announced", "larger than"),
    ],
)
def test_what_is_no_picture_of_that_host_is_refused_and_tells_nothing(
    fetching: GatewayProcess, pictures: Site, path: str, why: str
) -> None:
    before = len(pictures.told)
    status, _, body = fetching.chat([part(pictures.url(path))])
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "media_not_fetched")
    assert error["param"] == "messages[0].content[0].image_url.url"
    assert why in error["message"]
    assert "SECRET" not in error["message"]
    assert len(pictures.told) == before


def test_what_does_not_end_is_given_up(pictures: Site, tmp_path: Path) -> None:
    hosts = (f"127.0.0.1:{pictures.port}",)
    limits = ConnectionLimits(max_body_bytes=4 << 20)
    with running_gateway(tmp_path, [pictures.url("")], media_hosts=hosts, limits=limits) as gateway:
        body = gateway.chat([part(pictures.url("/endless"))])[2]
        assert "larger than" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_no_other_host_is_asked(fetching: GatewayProcess, pictures: Site, host: str) -> None:
    before = len(pictures.asked)
    body = fetching.chat([part(f"http://{host}:{pictures.port}/png")])[2]
    assert json.loads(body)["error"]["code"] == "media_not_fetched"
    assert len(pictures.asked) == before


def test_a_name_that_leads_into_the_own_network_is_not_followed(pictures: Site, tmp_path: Path) -> None:
    with running_gateway(
        tmp_path, [pictures.url("")], media_hosts=(f"localhost:{pictures.port}", "*")
    ) as gateway:
        before = len(pictures.asked)
        body = gateway.chat([part(f"http://localhost:{pictures.port}/png")])[2]
        assert "not one of the public network" in json.loads(body)["error"]["message"]
        assert len(pictures.asked) == before


def test_bounds_hold_for_what_was_fetched(fetching: GatewayProcess, pictures: Site) -> None:
    body = fetching.chat([part(pictures.url("/png"))] * 70)[2]
    assert json.loads(body)["error"]["code"] == "too_many_images"
