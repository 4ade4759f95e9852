"""The tensors that a config implies, where no header could be read: names of our own where it does not say.

Layer by layer, but never more than a config's bounds allow. What is known of a family beyond its config is in
`probe.families`.
"""

from collections.abc import Iterator

from autoglm_serve.core.facts import Attention, TextFacts, VisionFacts
from autoglm_serve.probe.checkpoint import Tensor
from autoglm_serve.probe.config_values import MOST_LAYERS, Config, architecture, whole, within
from autoglm_serve.probe.families import FAMILIES, Family
from autoglm_serve.probe.text_facts import text_config, text_facts
from autoglm_serve.probe.vision_facts import vision_facts

Shape = tuple[int, ...]


def implied_tensors(config: Config) -> tuple[Tensor, ...]:
    """Every tensor that a config implies. Raises Meaningless or Lacking."""
    rules = FAMILIES.get(architecture(config), Family())
    text = text_facts(config, rules)
    return tuple(derived(config, text, vision_facts(config, {}, rules)))


def derived(config: Config, text: TextFacts, vision: VisionFacts | None) -> Iterator[Tensor]:
    shapes = dict(_text_shapes(config, text))
    if vision is not None:
        shapes |= dict(_tower_shapes(config["vision_config"], vision, text.hidden))
    if isinstance(config.get("audio_config"), dict):
        shapes |= dict(_audio_shapes(config["audio_config"], text.hidden))
    dtype = _dtype(config)
    yield from (Tensor(name=name, shape=shape, dtype=dtype) for name, shape in shapes.items())


def linears(tensors: Iterator[Tensor] | tuple[Tensor, ...]) -> tuple[str, ...]:
    """Names of those that a quantised checkpoint of this shape would have quantised."""
    parts = (".self_attn.", ".mlp.", ".linear_attn.")
    return tuple(
        tensor.name
        for tensor in tensors
        if tensor.name.startswith("model.layers.")
        and len(tensor.shape) == 2
        and any(part in tensor.name for part in parts)
        and not tensor.name.endswith(".mlp.gate.weight")
    )


def _dtype(config: Config) -> str:
    text = within(config, "text_config")
    name = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16")
    return {"float32": "F32", "float16": "F16"}.get(name, "BF16")


# --- the decoder -----------------------------------------------------------------------------------------


def _text_shapes(config: Config, text: TextFacts) -> Iterator[tuple[str, Shape]]:
    inner = text_config(config)
    kind = str(inner.get("model_type", ""))
    dense = text.layers - text.expert_layers if text.experts else text.layers
    norms = 4 if kind.startswith(("gemma", "glm4")) and not text.experts else 2
    yield "model.embed_tokens.weight", (text.vocab, text.hidden)
    if not text.tied_embeddings:
        yield "lm_head.weight", (text.vocab, text.hidden)
    yield "model.norm.weight", (text.hidden,)
    recurrent = sum(each.layers for each in text.kept if each.kind is Attention.STATE)
    latent = any(each.kind is Attention.LATENT for each in text.kept)
    for layer in range(text.layers):
        at = f"model.layers.{layer}"
        yield f"{at}.norms.weight", (norms * text.hidden,)
        if layer < recurrent:
            yield from _recurrent(inner, text, f"{at}.linear_attn")
        elif latent:
            yield from _latent(inner, text, f"{at}.self_attn")
        else:
            yield from _attention(inner, text, f"{at}.self_attn", kind)
        yield from _experts(text, at) if text.experts and layer >= dense else _mlp(text, at)


def _attention(inner: Config, text: TextFacts, at: str, kind: str) -> Iterator[tuple[str, Shape]]:
    bias = bool(inner.get("attention_bias", kind.startswith(("glm4", "qwen2"))))
    query, key = text.heads * text.head_dim, text.kv_heads * text.head_dim
    gated = 2 if inner.get("attn_output_gate", kind.startswith(("qwen3_5", "qwen3_next"))) else 1
    for name, rows in (("q", query * gated), ("k", key), ("v", key)):
        yield f"{at}.{name}_proj.weight", (rows, text.hidden)
        if bias:
            yield f"{at}.{name}_proj.bias", (rows,)
    yield f"{at}.o_proj.weight", (text.hidden, query)


def _latent(inner: Config, text: TextFacts, at: str) -> Iterator[tuple[str, Shape]]:
    """Source: DeepseekV2Attention of transformers."""
    rank, rope = whole(inner, "kv_lora_rank", default=512), whole(inner, "qk_rope_head_dim", default=64)
    nope, value = whole(inner, "qk_nope_head_dim", default=128), whole(inner, "v_head_dim", default=128)
    queries, query_rank = text.heads * (nope + rope), whole(inner, "q_lora_rank", default=0)
    if query_rank:
        yield f"{at}.q_a_proj.weight", (query_rank, text.hidden)
        yield f"{at}.q_b_proj.weight", (queries, query_rank)
    else:
        yield f"{at}.q_proj.weight", (queries, text.hidden)
    yield f"{at}.kv_a_proj_with_mqa.weight", (rank + rope, text.hidden)
    yield f"{at}.kv_b_proj.weight", (text.heads * (nope + value), rank)
    yield f"{at}.o_proj.weight", (text.hidden, text.heads * value)


def _recurrent(inner: Config, text: TextFacts, at: str) -> Iterator[tuple[str, Shape]]:
    """Source: Qwen3NextGatedDeltaNet of transformers; others are about as large."""
    heads = whole(inner, "linear_num_value_heads", default=text.heads)
    keys = whole(inner, "linear_num_key_heads", default=text.heads) * whole(
        inner, "linear_key_head_dim", default=text.head_dim
    )
    values = heads * whole(inner, "linear_value_head_dim", default=text.head_dim)
    yield f"{at}.in_proj_qkvz.weight", (2 * keys + 2 * values, text.hidden)
    yield f"{at}.in_proj_ba.weight", (2 * heads, text.hidden)
    yield f"{at}.conv1d.weight", (2 * keys + values, 1, whole(inner, "linear_conv_kernel_dim", default=4))
    yield f"{at}.out_proj.weight", (text.hidden, values)


def _mlp(text: TextFacts, at: str) -> Iterator[tuple[str, Shape]]:
    if text.intermediate:
        yield f"{at}.mlp.gate_up_proj.weight", (2 * text.intermediate, text.hidden)
        yield f"{at}.mlp.down_proj.weight", (text.hidden, text.intermediate)


def _experts(text: TextFacts, at: str) -> Iterator[tuple[str, Shape]]:
    yield f"{at}.mlp.gate.weight", (text.experts, text.hidden)
    yield f"{at}.mlp.experts.weight", (3 * text.experts * text.expert_intermediate, text.hidden)
    if text.shared_expert_intermediate:
        yield f"{at}.mlp.shared_expert.weight", (3 * text.shared_expert_intermediate, text.hidden)


# --- towers ----------------------------------------------------------------------------------------------


def _tower_shapes(config: Config, vision: VisionFacts, out: int) -> Iterator[tuple[str, Shape]]:
    hidden, at = vision.hidden, "visual"
    channels = whole(config, "in_channels", "in_chans", default=3)
    frames = whole(config, "temporal_patch_size", default=1)
    patch = vision.geometry.patch_px
    table = whole(config, "num_position_embeddings", default=0)
    positions = table or (whole(config, "image_size", default=336) // patch) ** 2
    yield f"{at}.patch_embed.proj.weight", (hidden, channels, frames, patch, patch)
    yield f"{at}.patch_embed.proj.bias", (hidden,)
    yield f"{at}.embeddings.position_embedding.weight", (positions, hidden)
    yield f"{at}.norms.weight", (2 * hidden,)
    for block in range(vision.depth):
        yield f"{at}.blocks.{block}.attn.qkv.weight", (3 * hidden, hidden)
        yield f"{at}.blocks.{block}.attn.proj.weight", (hidden, hidden)
        yield f"{at}.blocks.{block}.mlp.up.weight", ((2 if vision.gated else 1) * vision.intermediate, hidden)
        yield f"{at}.blocks.{block}.mlp.down.weight", (hidden, vision.intermediate)
        yield f"{at}.blocks.{block}.norms.weight", (2 * hidden,)
    yield from _bridge(config, vision, out, at)


def _bridge(config: Config, vision: VisionFacts, out: int, at: str) -> Iterator[tuple[str, Shape]]:
    """From the tower's states to the decoder's."""
    hidden, merge, kind = vision.hidden, vision.geometry.merge, str(config.get("model_type", ""))
    if kind.startswith("glm"):
        merger = whole(config, "intermediate_size", default=4 * out)
        yield f"{at}.downsample.weight", (out, hidden, merge, merge)
        yield f"{at}.downsample.bias", (out,)
        yield f"{at}.merger.proj.weight", (out, out)
        yield f"{at}.merger.norm.weight", (2 * out,)
        yield f"{at}.merger.gate_up.weight", (2 * merger, out)
        yield f"{at}.merger.down.weight", (out, merger)
    elif kind.startswith("siglip"):
        yield f"{at}.projector.weight", (hidden, out)
    elif kind.startswith("clip"):
        yield f"{at}.projector.first.weight", (out, hidden)
        yield f"{at}.projector.second.weight", (out, out)
    else:
        wide = hidden * merge**2
        deep = config.get("deepstack_visual_indexes")
        for number in range(1 + (min(len(deep), MOST_LAYERS) if isinstance(deep, list) else 0)):
            yield f"{at}.merger.{number}.first.weight", (wide, wide)
            yield f"{at}.merger.{number}.second.weight", (out, wide)


def _audio_shapes(config: Config, out: int) -> Iterator[tuple[str, Shape]]:
    hidden = whole(config, "hidden_size", default=1280)
    inner = whole(config, "intermediate_size", default=4 * hidden)
    for layer in range(whole(config, "num_hidden_layers", default=32, most=MOST_LAYERS)):
        yield f"audio_tower.layers.{layer}.attn.weight", (4 * hidden, hidden)
        yield f"audio_tower.layers.{layer}.mlp.weight", (2 * inner, hidden)
    yield "audio_tower.projector.weight", (2 * out, inner)
