"""What strangers' bytes are read by, each as a function of bytes that may refuse and nothing else."""

import contextlib
import io
from collections.abc import Callable

import httptools
import orjson

from autoglm_serve.core import multipart
from autoglm_serve.core.fleet import FleetView, ModelView
from autoglm_serve.core.model import Capability, VisionGeometry
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.access.doors import DoorPolicy, Doors
from autoglm_serve.gateway.admission.admit import admit
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.admission.media import NotAPicture, media_type_of, picture_in, size_of
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.wire import sse
from autoglm_serve.gateway.wire.addresses import parse
from autoglm_serve.gateway.wire.download import MediaDownload, NotFetched
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.splice import find_value, with_field
from autoglm_serve.probe.gguf import GgufError, parse_gguf

FLEET = FleetView(
    models=(ModelView(names=("demo",), capabilities=frozenset(Capability), vision=VisionGeometry()),)
)
FORM = b"multipart/form-data; boundary=b"
Target = Callable[[bytes], None]


def _admitted(path: str, kind: bytes = b"application/json") -> Target:
    def target(data: bytes) -> None:
        request = Request(
            method=b"POST", path=path, headers={b"content-type": kind}, body=data, started_s=0.0
        )
        call = admit(request, ENDPOINTS[path], FLEET, MediaPolicy(hosts=("*",)))
        assert call.cost_tokens > 0
        if kind != FORM:
            assert isinstance(orjson.loads(call.body), dict)

    return target


def _packed(data: bytes) -> None:
    headers = {b"content-type": b"application/json", b"content-encoding": b"gzip"}
    admit(
        Request(method=b"POST", path="/v1/chat/completions", headers=headers, body=data, started_s=0.0),
        ENDPOINTS["/v1/chat/completions"],
        FLEET,
        MediaPolicy(),
    )


def _form(data: bytes) -> None:
    for part in multipart.parts(FORM, data):
        assert 0 <= part.start <= part.end <= len(data)


def _events(data: bytes) -> None:
    whole = sse.whole_events(data)
    assert 0 <= whole <= len(data)
    for event in sse.data_of(data[:whole]):
        sse.parsed(event)
    sse.rewrite(data[:whole], lambda value: False)
    assert sse.whole_events(data[:whole]) == whole


def _picture(data: bytes) -> None:
    found = size_of(data)
    assert found is None or found.pixels > 0
    media_type_of(data)
    with contextlib.suppress(UnicodeDecodeError):
        picture_in(data.decode())


def _spliced(data: bytes) -> None:
    if not isinstance(orjson.loads(data), dict):
        return
    body = data[data.index(b"{") :]
    find_value(body, "model")
    assert orjson.loads(with_field(body, "model", "other"))["model"] == "other"


def _address(data: bytes) -> None:
    parse("http://" + data.decode("latin-1"))


def _answer(data: bytes) -> None:
    httptools.HttpResponseParser(MediaDownload(1 << 20)).feed_data(data)


def _host(data: bytes) -> None:
    headers = {b"host": data, b"origin": data[:40]}
    request = Request(method=b"GET", path="/", headers=headers, body=b"", started_s=0.0)
    Doors(DoorPolicy(hosts=("localhost",), origins=())).check(request)


def _gguf(data: bytes) -> None:
    parse_gguf(io.BytesIO(data), len(data))


REFUSALS = (Refusal, NotAPicture, GgufError, NotFetched, httptools.HttpParserError, ValueError)
"""How a parser says no; anything else is a fault."""
TARGETS: dict[str, Target] = {
    "chat": _admitted("/v1/chat/completions"),
    "completion": _admitted("/v1/completions"),
    "responses": _admitted("/v1/responses"),
    "messages": _admitted("/v1/messages"),
    "rerank": _admitted("/v1/rerank"),
    "speech": _admitted("/v1/audio/transcriptions", FORM),
    "packed": _packed,
    "form": _form,
    "events": _events,
    "picture": _picture,
    "splice": _spliced,
    "address": _address,
    "answer": _answer,
    "host": _host,
    "gguf": _gguf,
}
