"""What a client may see of the service. Pure."""

from dataclasses import replace

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.keys.key import Key


def visible_to(key: Key | None, view: FleetView) -> FleetView:
    """The fleet with the models that this key opens: the others are not there for it, in any answer."""
    if key is None or not key.models:
        return view
    return replace(view, models=tuple(model for model in view.models if key.opens_model(model.names)))
