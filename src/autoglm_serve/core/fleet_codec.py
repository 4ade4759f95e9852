"""The fleet view and its changes as bytes and back: what the control plane sends to every gateway worker.

What a newer control plane says beyond what is known here is passed over: for a moment it has older workers.
"""

from dataclasses import fields
from typing import Any

import orjson

from autoglm_serve.core.fleet import Continuation, FleetChange, FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import Capability, Feature, ImageRule, VisionGeometry
from autoglm_serve.core.replica import Loss, ReplicaState

_FEATURES = frozenset(Feature)


def encode(news: FleetView | FleetChange) -> bytes:
    """One line of JSON, no newline."""
    return orjson.dumps(news, default=_plain)


def decode(data: bytes) -> FleetView | FleetChange:
    """The inverse of `encode`. Raises ValueError, LookupError or TypeError on anything else."""
    raw = orjson.loads(data)
    if "since" in raw:
        return FleetChange(
            since=raw["since"],
            version=raw["version"],
            changed=tuple(_replica(item) for item in raw["changed"]),
            gone=tuple(raw["gone"]),
            models=None if raw["models"] is None else tuple(_model(item) for item in raw["models"]),
        )
    return FleetView(
        version=raw["version"],
        models=tuple(_model(item) for item in raw["models"]),
        replicas=tuple(_replica(item) for item in raw["replicas"]),
    )


def _plain(value: object) -> list[str]:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} has no place in a fleet view")


def _model(raw: dict[str, Any]) -> ModelView:
    vision = raw["vision"]
    return ModelView(
        **{
            **_known(raw, ModelView),
            "names": tuple(raw["names"]),
            "capabilities": frozenset(Capability(item) for item in raw["capabilities"]),
            "vision": _geometry(vision) if vision else None,
            "undone": frozenset(Feature(item) for item in raw.get("undone", ()) if item in _FEATURES),
        }
    )


def _geometry(raw: dict[str, Any]) -> VisionGeometry:
    values = _known(raw, VisionGeometry)
    grids = tuple((columns, rows) for columns, rows in values.get("grids", ()))
    return VisionGeometry(**{**values, "grids": grids, "rule": ImageRule(values.get("rule", "dynamic"))})


def _replica(raw: dict[str, Any]) -> ReplicaView:
    lost = raw.get("lost")
    values = {
        "state": ReplicaState(raw["state"]),
        "continuation": Continuation(raw["continuation"]),
        "lost": Loss(**_known(lost, Loss)) if lost else None,
    }
    return ReplicaView(**{**_known(raw, ReplicaView), **values})


def _known(raw: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}
