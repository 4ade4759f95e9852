"""The forward pass of Glm4vForConditionalGeneration for training: many pictures of one size at once, many
branches on each. transformers' own pass loops over pictures in Python. Same modules, same weights, same
numbers: see tests/training/test_forward.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Glm4vForConditionalGeneration
from transformers.models.glm4v.modeling_glm4v import Glm4vTextDecoderLayer, Glm4vVisionBlock, Glm4vVisionModel

from .shapes import CLIP_MEAN, CLIP_STD, PATCH

LOOKING_LAYERS = (3, 4)
"""The layers of the text model that are taught to look things up: on the screen, and in what was said."""
TAGGING_LAYER = 2
"""What comes into this layer tells which words are the errand."""


def see(visual: Glm4vVisionModel, pixels: Tensor) -> Tensor:
    """uint8 [pictures, height, width, 3] → [pictures, image tokens, width of the text model]."""
    count, height, width, _ = pixels.shape
    rows, columns = height // (2 * PATCH), width // (2 * PATCH)
    mean = torch.tensor(CLIP_MEAN, device=pixels.device)
    std = torch.tensor(CLIP_STD, device=pixels.device)
    scaled = (pixels.float() / 255 - mean) / std
    patches = scaled.reshape(count, rows, 2, PATCH, columns, 2, PATCH, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
    flat = patches.reshape(count, rows * columns * 4, 3 * PATCH * PATCH)
    kernel = visual.patch_embed.proj
    x = functional.linear(flat, kernel.weight.sum(2).flatten(1), kernel.bias)
    x = visual.post_conv_layernorm(x)
    places = _places(rows, columns, pixels.device)
    cos, sin = visual.rotary_pos_emb(x, places)
    x = x + _learned_places(visual, places, 2 * rows, 2 * columns)
    for block in visual.blocks:
        x = _block(block, x, cos, sin)
    x = visual.post_layernorm(x)
    merged = x.reshape(count * rows * columns, 2, 2, -1).permute(0, 3, 1, 2)
    merged = visual.downsample(merged).reshape(count, rows * columns, -1)
    out: Tensor = visual.merger(merged)
    return out


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Row and column of every patch, in the order of the patches: merged fours stay together."""
    down = torch.arange(2 * rows, device=device).view(rows, 1, 2, 1).expand(rows, columns, 2, 2)
    across = torch.arange(2 * columns, device=device).view(1, columns, 1, 2).expand(rows, columns, 2, 2)
    return torch.stack((down.flatten(), across.flatten()), -1)


def _learned_places(visual: Glm4vVisionModel, places: Tensor, height: int, width: int) -> Tensor:
    table = visual.embeddings.position_embedding.weight
    side = int(table.shape[0] ** 0.5)
    grid = torch.stack(((places[:, 1] + 0.5) / width * 2 - 1, (places[:, 0] + 0.5) / height * 2 - 1), -1)
    image = table.view(side, side, -1).permute(2, 0, 1)[None].float()
    found = functional.grid_sample(
        image, grid[None, :, None].float(), "bicubic", "border", align_corners=False
    )
    return found[0, :, :, 0].T


def _block(block: Glm4vVisionBlock, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads = block.attn.num_heads
    count, length, wide = x.shape
    mixed = block.attn.qkv(block.norm1(x)).view(count, length, 3, heads, wide // heads)
    query, key, value = mixed.permute(2, 0, 3, 1, 4)
    query, key = _turn_halves(query, cos, sin), _turn_halves(key, cos, sin)
    attended = functional.scaled_dot_product_attention(query, key, value)
    x = x + block.attn.proj(attended.transpose(1, 2).reshape(count, length, wide))
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def _turn_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, -1)
    return (x.float() * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What the text model makes of a batch."""

    hidden: Tensor
    """[rows, length, width], after the last norm."""
    early: Tensor
    """[rows, length, width], before the tagging layer."""
    looks: tuple[Tensor, ...]
    """Where the looking heads look from the asked places, in logarithms: [rows, heads, points, length]."""


def read(
    model: Glm4vForConditionalGeneration,
    embeddings: Tensor,
    place: Tensor,
    mask: Tensor,
    asked: tuple[Tensor, ...],
) -> Read:
    """[rows, length, width], [3, rows, length], bool [rows, 1, length, length], for each looking layer
    int [rows, points] → what is read.
    """
    text = model.model.language_model
    cos, sin = text.rotary_emb(embeddings, place)
    bias = torch.zeros(mask.shape, dtype=_half(embeddings), device=mask.device).masked_fill_(
        ~mask, -torch.inf
    )
    x = early = embeddings
    looks = []
    for index, layer in enumerate(text.layers):
        if index == TAGGING_LAYER:
            early = x
        if index in LOOKING_LAYERS:
            looks.append(_look(layer, x, cos, sin, mask, asked[LOOKING_LAYERS.index(index)]))
        x = _layer(layer, x, cos, sin, bias)
    return Read(hidden=text.norm(x), early=early, looks=tuple(looks))


def _half(x: Tensor) -> torch.dtype:
    return torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else x.dtype


def _look(
    layer: Glm4vTextDecoderLayer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, asked: Tensor
) -> Tensor:
    """What this layer's first head of each key/value group attends to, in logarithms."""
    attention = layer.self_attn
    rows, length, _ = x.shape
    normed = layer.input_layernorm(x)

    def at(places: Tensor) -> Tensor:
        return places.gather(1, asked[..., None].expand(-1, -1, places.shape[-1]))

    key = attention.k_proj(normed).view(rows, length, -1, attention.head_dim).transpose(1, 2)
    query = attention.q_proj(at(normed)).view(rows, asked.shape[1], -1, attention.head_dim).transpose(1, 2)
    query = _turn_pairs(query[:, :: attention.num_key_value_groups], at(cos), at(sin))
    scores = (query @ _turn_pairs(key, cos, sin).transpose(2, 3)).float() * attention.scaling
    hidden = ~mask[:, 0].gather(1, asked[..., None].expand(-1, -1, length))
    return scores.masked_fill(hidden[:, None], -1e4).log_softmax(-1)


def _layer(layer: Glm4vTextDecoderLayer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    attention = layer.self_attn
    rows, length, _ = x.shape
    normed = layer.input_layernorm(x)

    def heads(projection: nn.Linear) -> Tensor:
        return projection(normed).view(rows, length, -1, attention.head_dim).transpose(1, 2)

    query = _turn_pairs(heads(attention.q_proj), cos, sin)
    key = _turn_pairs(heads(attention.k_proj), cos, sin)
    key = key.repeat_interleave(attention.num_key_value_groups, 1)
    value = heads(attention.v_proj).repeat_interleave(attention.num_key_value_groups, 1)
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    x = x + layer.post_self_attn_layernorm(
        attention.o_proj(attended.transpose(1, 2).reshape(rows, length, -1))
    )
    out: Tensor = x + layer.post_mlp_layernorm(layer.mlp(layer.post_attention_layernorm(x)))
    return out


def _turn_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """GLM's rotation: neighbouring pairs, over the first part of the head only."""
    turning = cos.shape[-1]
    part = x[..., :turning].float()
    swapped = torch.stack((-part[..., 1::2], part[..., 0::2]), -1).flatten(-2)
    turned = part * cos[:, None].float() + swapped * sin[:, None].float()
    return torch.cat((turned.to(x.dtype), x[..., turning:]), -1)


def branch_mask(branch: Tensor) -> Tensor:
    """int [rows, length] → bool [rows, 1, length, length]: a branch sees the prefix (0) and itself,
    backwards.
    """
    asking, seen = branch[:, :, None], branch[:, None, :]
    length = branch.shape[1]
    backwards = torch.ones(length, length, dtype=torch.bool, device=branch.device).tril()
    allowed = backwards & ((seen == 0) | (seen == asking)) & (seen >= 0)
    allowed |= torch.eye(length, dtype=torch.bool, device=branch.device)
    return allowed[:, None]
