"""One request of Ollama's API, from its path to its answer."""

from collections.abc import Awaitable
from datetime import UTC, datetime

import orjson

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.admission.admit import is_light
from autoglm_serve.gateway.admission.document import Json, parse_object
from autoglm_serve.gateway.admission.plain import plain_json, without_half_pairs
from autoglm_serve.gateway.exchange.account import Account, Outcome
from autoglm_serve.gateway.exchange.dispatch import dispatch
from autoglm_serve.gateway.ollama import pages
from autoglm_serve.gateway.ollama.answer import Telling
from autoglm_serve.gateway.ollama.caller import OllamaCaller
from autoglm_serve.gateway.ollama.question import PATHS, Form, Translation, question
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.envelope import JSON_TYPE, OLLAMA
from autoglm_serve.gateway.wire.http import Headers, Request

PREFIX = OLLAMA
_JSON: Headers = ((b"content-type", JSON_TYPE),)
_LINES: Headers = ((b"content-type", b"application/x-ndjson"),)
_ITS_OWN = frozenset({b"content-type", b"content-encoding", b"content-length", b"accept"})
"""Headers of the request that are not those of what is asked in its place."""
_ELSEWHERE = frozenset(f"{PREFIX}{name}" for name in ("push", "create", "copy", "delete"))


async def serve(client: ClientConnection, request: Request, worker: Worker) -> None:
    """Answer it, whatever it is."""
    try:
        if request.path in PATHS:
            _require(request, b"POST")
            await _infer(client, request, worker)
        else:
            await _tell(client, request, worker)
    except Refusal as refusal:
        account = Account(worker.counters, "other", request.started_s)
        account.outcome = Outcome.REFUSED
        client.refuse(refusal)
        account.close(worker.loop.time())


async def _infer(client: ClientConnection, request: Request, worker: Worker) -> None:
    view = worker.seen_by(request)
    asked, written = await _read(request, worker, view)
    telling = Telling(
        question=asked, begun_s=request.started_s, clock=worker.loop.time, wall=lambda: datetime.now(UTC)
    )
    if asked.only_load:
        pages.named(asked.body, view)
        lines = asked.stream and asked.form in (Form.CHAT, Form.GENERATE)
        client.respond(200, _LINES if lines else _JSON, telling.loaded() + (b"\n" if lines else b""))
        return
    inner = Request(
        method=b"POST",
        path=asked.path,
        headers={name: value for name, value in request.headers.items() if name not in _ITS_OWN},
        body=written,
        started_s=request.started_s,
        loopback=request.loopback,
        peer=request.peer,
    )
    inner.id = request.id
    await dispatch(OllamaCaller(client, request, telling), inner, worker)


async def _read(request: Request, worker: Worker, view: FleetView) -> tuple[Translation, bytes]:
    def read() -> tuple[Translation, bytes]:
        asked = question(request.path, _body(request), view)
        return asked, asked.written()

    if is_light(request):
        return read()
    reading: Awaitable[tuple[Translation, bytes]] = worker.loop.run_in_executor(worker.readers, read)
    return await reading


def _body(request: Request) -> Json:
    """Its clients write what curl sends by itself, which is no type that JSON has."""
    raw = plain_json(request.body, request.headers)
    try:
        return parse_object(raw)
    except Refusal as refusal:
        if "surrogate" not in refusal.message:
            raise
    return parse_object(without_half_pairs(raw))


async def _tell(client: ClientConnection, request: Request, worker: Worker) -> None:
    match request.path.removeprefix(PREFIX):
        case "version":
            _require(request, b"GET", b"HEAD")
            client.respond(200, _JSON, orjson.dumps(pages.version(worker.settings.version)))
        case "tags":
            _require(request, b"GET", b"HEAD")
            client.respond(200, _JSON, orjson.dumps(pages.tags(worker.seen_by(request))))
        case "ps":
            _require(request, b"GET", b"HEAD")
            client.respond(200, _JSON, orjson.dumps(pages.ps(worker.seen_by(request))))
        case "show":
            _require(request, b"POST")
            client.respond(200, _JSON, orjson.dumps(pages.show(_body(request), worker.seen_by(request))))
        case "pull":
            _require(request, b"POST")
            body = _body(request)
            kind = _JSON if body.get("stream") is False else _LINES
            client.respond(200, kind, pages.pull(body, worker.seen_by(request)))
        case _:
            raise _nothing_here(request)


def _require(request: Request, *methods: bytes) -> None:
    if request.method not in methods:
        method = request.method.decode("ascii", "replace")
        message = f"{request.path} takes {methods[0].decode()}, not {method}."
        raise Refusal(405, "wrong_method", message)


def _nothing_here(request: Request) -> Refusal:
    if request.path in _ELSEWHERE or request.path.startswith(f"{PREFIX}blobs"):
        message = (
            f"{request.path[:200]} changes models, which no request does here. They are chosen where the "
            "service is started: autoglm serve MODEL, and autoglm pull MODEL before."
        )
        return Refusal(400, "not_supported", message)
    message = (
        f"There is no {request.path[:200]} here. Of Ollama's API there are chat, generate, embed, "
        "embeddings, tags, show, ps, version and pull; OpenAI's is under /v1."
    )
    return Refusal(404, "unknown_path", message, type=RefusalType.NOT_FOUND)
