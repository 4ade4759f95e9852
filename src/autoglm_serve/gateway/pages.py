"""Paths that the gateway answers by itself: health, models, metrics, preflight, and what is not served."""

from collections.abc import Callable, Mapping
from functools import partial

import orjson

from autoglm_serve.core.fleet import FleetView, ModelView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.gateway.access.credentials import presented
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.exchange.account import LATENCY_BUCKETS_S
from autoglm_serve.gateway.exchange.delivery import Client
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.envelope import JSON_TYPE, OLLAMA
from autoglm_serve.gateway.wire.http import Headers, Request
from autoglm_serve.keys.key import Scope
from autoglm_serve.launch import admin_token
from autoglm_serve.observe import counter_file

_TEXT: Headers = ((b"content-type", b"text/plain; charset=utf-8"),)
_JSON: Headers = ((b"content-type", JSON_TYPE),)
_PREFLIGHT: Headers = (
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*, authorization"),
    (b"access-control-max-age", b"86400"),
)


METRICS = "/metrics"


def answer(client: Client, request: Request, worker: Worker, status: ServiceStatus | None = None) -> bool:
    """Answer `request` if it is ours to answer; False leaves it to `dispatch`. Raises Refusal.

    `status` is what the control plane has said for it, where it was asked.
    """
    if request.method == b"OPTIONS":
        client.respond(204, _PREFLIGHT, b"")
        return True
    page = _PAGES.get(request.path)
    if request.path == METRICS:
        page = partial(_metrics, status)
    elif request.path.startswith("/v1/models/"):
        page = _one_model
    if page is not None:
        if request.method not in (b"GET", b"HEAD"):
            raise _wrong_method(request, "GET")
        client.respond(*page(request, worker))
        return True
    if request.path in ENDPOINTS:
        if request.method != b"POST":
            raise _wrong_method(request, "POST")
        return False
    if request.path.startswith(OLLAMA):
        return False
    if request.path.startswith("/admin/") and _may_administer(request, worker):
        return False
    raise Refusal(
        404,
        "unknown_path",
        f"There is no {request.method.decode('ascii', 'replace')} {request.path[:200]} here. "
        "The OpenAI API is under /v1: /v1/models, /v1/chat/completions …; Ollama's under /api.",
        type=RefusalType.NOT_FOUND,
    )


def _may_administer(request: Request, worker: Worker) -> bool:
    """Only who has the service's token, which its state directory keeps, or a key for it.

    Where a request comes from says nothing: a proxy on this machine passes on what anybody asks, and so does
    a browser.
    """
    if has_admin_token(request.headers, worker):
        return True
    try:
        return Scope.ADMIN in worker.keyring.find(request.headers).scopes
    except Refusal:
        return False


def has_admin_token(headers: Mapping[bytes, bytes], worker: Worker) -> bool:
    try:
        secret = presented(headers)
    except Refusal:
        return False
    return secret is not None and admin_token.is_right(worker.settings.state_dir, secret)


_Page = tuple[int, Headers, bytes]


def _health(request: Request, worker: Worker) -> _Page:
    return 200, _JSON, b'{"status":"ok"}'


def _ready(request: Request, worker: Worker) -> _Page:
    view = worker.fleet.value
    ready = any(replica.routable for replica in view.replicas) and not view.leaving
    status = "ready" if ready else "stopping" if view.leaving else "not ready"
    body = orjson.dumps({"status": status, "replicas": fleet_states(view)})
    return (200 if ready else 503), _JSON, body


def _version(request: Request, worker: Worker) -> _Page:
    return 200, _JSON, orjson.dumps({"version": worker.settings.version})


def _models(request: Request, worker: Worker) -> _Page:
    view = worker.seen_by(request)
    data = [_card(name, model) for model in view.models for name in model.names]
    return 200, _JSON, orjson.dumps({"object": "list", "data": data})


def _one_model(request: Request, worker: Worker) -> _Page:
    view = worker.seen_by(request)
    name = request.path.removeprefix("/v1/models/")
    model = view.model(name)
    if model is None:
        served = ", ".join(view.served_names) or "none"
        message = f"The model '{name[:200]}' is not served here. Served: {served}."
        raise Refusal(404, "model_not_found", message, type=RefusalType.NOT_FOUND, param="model")
    return 200, _JSON, orjson.dumps(_card(name, model))


def _metrics(status: ServiceStatus | None, request: Request, worker: Worker) -> _Page:
    # Imported when first asked for: a worker that nobody scrapes does not carry the library.
    from autoglm_serve.observe import metrics

    worker.keyring.of(request, Scope.METRICS)
    settings = worker.settings

    def load(slot: int) -> metrics.ReplicaLoad:
        return metrics.ReplicaLoad(
            requests=worker.load.requests(slot), cost_tokens=worker.load.cost_tokens(slot)
        )

    text = metrics.exposition(
        version=settings.version,
        counts=counter_file.read(settings.counter_paths),
        buckets_s=LATENCY_BUCKETS_S,
        fleet=worker.fleet.value,
        load=load,
        status=status,
    )
    return 200, ((b"content-type", metrics.CONTENT_TYPE),), text


def _home(request: Request, worker: Worker) -> _Page:
    """For whoever opens the address in a browser, or asks it with a tool that begins there."""
    view = worker.fleet.value
    if worker.keyring.guarded:
        return 200, _TEXT, b"autoglm-serve: an OpenAI-compatible API under /v1, for who has an API key\n"
    host = request.headers.get(b"host", b"").decode("ascii", "replace") or "this address"
    lines = [
        f"autoglm-serve {worker.settings.version}",
        f"OpenAI-compatible API at http://{host}/v1",
        *(f"  {', '.join(model.names)}: {', '.join(sorted(model.capabilities))}" for model in view.models),
        f"replicas: {', '.join(f'{id} {state}' for id, state in fleet_states(view).items()) or 'none'}",
        "GET /v1/models, /health, /ready, /metrics, /version; POST /v1/chat/completions …",
    ]
    return 200, _TEXT, "\n".join(lines).encode() + b"\n"


_PAGES: dict[str, Callable[[Request, Worker], _Page]] = {
    "/": _home,
    "/health": _health,
    "/ready": _ready,
    "/version": _version,
    "/v1/models": _models,
}


def fleet_states(view: FleetView) -> dict[str, ReplicaState]:
    return {replica.id: replica.state for replica in view.replicas}


def _card(name: str, model: ModelView) -> dict[str, object]:
    card: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": model.created_s,
        "owned_by": "autoglm-serve",
        "root": model.name,
        "capabilities": sorted(model.capabilities),
    }
    if model.max_model_len:
        card["max_model_len"] = model.max_model_len
    return card


def _wrong_method(request: Request, right: str) -> Refusal:
    method = request.method.decode("ascii", "replace")
    return Refusal(405, "wrong_method", f"{request.path} takes {right}, not {method}.")
