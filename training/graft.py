"""Weights of a shallower model as the start of a deeper one.

A new layer begins as nothing: what it adds to the stream passes a norm that starts near zero, so the deeper
model says at first what the shallower one said. Owns where new layers go: in front of the looking ones, so
that these keep their place between reading and writing.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Glm4vForConditionalGeneration

OLD_LAYERS: dict[int, tuple[int | None, ...]] = {
    4: (0, 1, None, 2, None, 3),
    6: (0, 1, 2, 3, 4, 5),
}
"""For a folder with so many layers: which of them each layer starts as."""
STILL = 0.02
NAME = re.compile(r"language_model\.layers\.(\d+)\.")


def graft(folder: Path, model: Glm4vForConditionalGeneration) -> None:
    """Fill the model with the folder's weights."""
    found = load_file(folder / "model.safetensors")
    old = 1 + max(int(match[1]) for name in found if (match := NAME.search(name)))
    layers = OLD_LAYERS[old]
    state = {}
    for name, tensor in found.items():
        match = NAME.search(name)
        if match is None:
            state[name] = tensor.float()
        elif int(match[1]) in layers:
            place = layers.index(int(match[1]))
            state[name.replace(match[0], f"language_model.layers.{place}.")] = tensor.float()
    missing, unexpected = model.load_state_dict(state, strict=False)
    fresh = {place for place, layer in enumerate(layers) if layer is None}
    lost = [name for name in missing if not (found := NAME.search(name)) or int(found[1]) not in fresh]
    if lost or unexpected:
        raise SystemExit(f"{folder} is not a folder of this model: lacks {lost}, has {unexpected}")
    for place in fresh:
        layer = model.model.language_model.layers[place]
        for norm in (layer.post_self_attn_layernorm, layer.post_mlp_layernorm):
            assert isinstance(norm.weight, nn.Parameter)
            torch.nn.init.constant_(norm.weight, STILL)
