"""What Ollama's API tells of models: which there are, which are loaded, what each can. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson

from autoglm_serve.core.fleet import FleetView, ModelView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.ollama.answer import now_text
from autoglm_serve.gateway.ollama.question import served_as

Json = dict[str, Any]

SPOKEN_VERSION = "0.13.0"
"""Of Ollama's API: clients ask for one that is new enough."""
_FOREVER = datetime(2200, 1, 1, tzinfo=UTC)
_CAN: Mapping[Capability, tuple[str, ...]] = {
    Capability.CHAT: ("completion", "tools", "thinking"),
    Capability.VISION: ("vision",),
    Capability.EMBEDDING: ("embedding",),
}
_FORMATS = {"llama.cpp": "gguf", "external": ""}
_UNKNOWN = "unknown"


def version(ours: str) -> Json:
    return {"version": SPOKEN_VERSION, "server": f"autoglm-serve {ours}"}


def tags(view: FleetView) -> Json:
    """Every name of a model that can be talked to."""
    return {"models": [_card(name, model, view) for model in _talking(view) for name in model.names]}


def ps(view: FleetView) -> Json:
    """The models of which a replica is ready."""
    loaded = [model for model in _talking(view) if any(each.routable for each in view.replicas_of(model))]
    more = {"expires_at": now_text(_FOREVER), "size_vram": 0}
    return {
        "models": [
            _card(model.name, model, view) | more | {"context_length": model.max_model_len or 0}
            for model in loaded
        ]
    }


def show(body: Json, view: FleetView) -> Json:
    """Raises Refusal for a model that is not served."""
    model = named(body, view)
    can = [word for each in Capability if each in model.capabilities for word in _CAN.get(each, ())]
    info: Json = {"general.architecture": _UNKNOWN, "general.basename": model.name}
    if model.max_model_len:
        info[f"{_UNKNOWN}.context_length"] = model.max_model_len
    return {
        "modelfile": f"# served by autoglm-serve\nFROM {model.name}\n",
        "parameters": "",
        "template": "",
        "details": _details(model, view),
        "model_info": info,
        "capabilities": can,
        "modified_at": _modified(model),
    }


def pull(body: Json, view: FleetView) -> bytes:
    """A model that is served is there already; another does not come by a request. Raises Refusal."""
    named(body, view)
    if body.get("stream") is False:
        return orjson.dumps({"status": "success"})
    return b'{"status":"pulling manifest"}\n{"status":"success"}\n'


def named(body: Json, view: FleetView) -> ModelView:
    name = body.get("model") or body.get("name") or ""
    model = view.model(served_as(str(name), view)) if name else next(iter(view.models), None)
    if model is None:
        served = ", ".join(view.served_names) or "none"
        message = (
            f"model '{str(name)[:200]}' not found. Served: {served}. Models are chosen where the service is "
            "started: autoglm serve MODEL."
        )
        raise Refusal(404, "model_not_found", message, type=RefusalType.NOT_FOUND, param="model")
    return model


def _talking(view: FleetView) -> list[ModelView]:
    return [model for model in view.models if model.capabilities & _CAN.keys()]


def _card(name: str, model: ModelView, view: FleetView) -> Json:
    return {
        "name": name,
        "model": name,
        "modified_at": _modified(model),
        "size": 0,
        "digest": sha256(f"{model.name} {model.created_s}".encode()).hexdigest(),
        "details": _details(model, view),
    }


def _modified(model: ModelView) -> str:
    return now_text(datetime.fromtimestamp(model.created_s, UTC))


def _details(model: ModelView, view: FleetView) -> Json:
    replicas = view.replicas_of(model)
    engine = replicas[0].engine if replicas else ""
    return {
        "parent_model": "",
        "format": _FORMATS.get(engine, "safetensors"),
        "family": _UNKNOWN,
        "families": [_UNKNOWN],
        "parameter_size": "",
        "quantization_level": "",
    }
