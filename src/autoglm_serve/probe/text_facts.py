"""The decoder's sizes: from its config, else from the headers' shapes, else from the defaults of its class.

Owns what a text config's keys mean. `probe.attention_facts` says what its layers keep of the tokens before.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autoglm_serve.core.facts import Attention, AttentionLayers, TextFacts
from autoglm_serve.probe.attention_facts import attention_layers
from autoglm_serve.probe.checkpoint import Tensor, is_text
from autoglm_serve.probe.config_values import MOST_LAYERS, Config, Lacking, Meaningless, whole, within
from autoglm_serve.probe.families import DEFAULTS, TIED, Family

MOST_EXPERTS = 16_384
_LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def text_config(config: Config) -> Config:
    """The decoder's part of a config; the whole of it where there is no part."""
    return within(config, "text_config", "llm_config", "language_config", "thinker_config") or config


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Where a decoder's sizes are looked up, in this order."""

    config: Config
    headers: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)

    def find(self, *keys: str, most: int = 2**31 - 1) -> int:
        """The first source that knows one of these keys; 0 where none does."""
        for source in (self.config, self.headers, self.defaults):
            value = whole(source, *keys, default=0, most=most)
            if value:
                return value
        return 0

    def need(self, *keys: str, most: int = 2**31 - 1) -> int:
        value = self.find(*keys, most=most)
        if not value:
            raise Lacking(keys[0])
        return value


def text_facts(config: Config, rules: Family, tensors: Iterable[Tensor] = ()) -> TextFacts:
    """Raises Meaningless or Lacking."""
    text = text_config(config)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    headers = header_sizes(tensors)
    sizes = Sizes(config=text, headers=headers, defaults=DEFAULTS.get(kind, {}))
    hidden = sizes.need("hidden_size", "n_embd")
    heads, kv_heads, head_dim = _heads(sizes, hidden)
    experts = _experts(sizes)
    positions = sizes.find("max_position_embeddings", "n_positions", "seq_length") or 4096
    layers = sizes.need("num_hidden_layers", "n_layer", "num_layers", most=MOST_LAYERS)
    attention = attention_layers(text, kind, layers, kv_heads, head_dim, positions)
    latent = any(each.kind is Attention.LATENT for each in attention)
    if latent:
        head_dim = _latent_head_dim(text)
    return TextFacts(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_intermediate(sizes, experts),
        vocab=sizes.need("vocab_size", "padded_vocab_size"),
        max_positions=positions,
        tied_embeddings=_tied(config, text, kind, headers),
        experts=experts,
        experts_per_token=_experts_per_token(sizes, experts),
        expert_intermediate=_expert_intermediate(sizes, experts),
        expert_layers=_expert_layers(text, sizes, layers) if experts else 0,
        shared_expert_intermediate=_shared(sizes, experts),
        rotary_table_bytes=positions * (4 if rules.mrope else 1) * _rotary(text, head_dim, latent) * 2,
        latent_copy_bytes=_latent_copies(text, attention, heads),
        attention=attention,
        recurrent_heads=whole(text, "linear_num_key_heads", "mamba_n_heads", "mamba_num_heads", default=0)
        if any(each.kind is Attention.STATE for each in attention)
        else 0,
    )


def _heads(sizes: Sizes, hidden: int) -> tuple[int, int, int]:
    """(heads, key/value heads, head dimension), each from what is known of the others where it is silent."""
    heads = whole(sizes.config, "num_attention_heads", "n_head", "num_heads", default=0)
    stated = whole(sizes.config, "num_key_value_heads", "multi_query_group_num", default=0)
    queries, keys = sizes.headers.get("query_rows", 0), sizes.headers.get("key_rows", 0)
    head_dim = whole(sizes.config, "head_dim", default=0) or sizes.headers.get("head_dim", 0)
    if not head_dim and keys and stated:
        head_dim = keys // stated
    head_dim = head_dim or sizes.defaults.get("head_dim", 0)
    heads = heads or (queries // head_dim if head_dim else 0) or sizes.defaults.get("num_attention_heads", 0)
    if not heads:
        raise Lacking("num_attention_heads")
    head_dim = max(1, head_dim or hidden // heads)
    kv_heads = stated or keys // head_dim or sizes.defaults.get("num_key_value_heads", 0) or heads
    if heads % kv_heads:
        raise Meaningless(f"{heads} attention heads do not divide by {kv_heads} key/value heads")
    return heads, kv_heads, head_dim


def _intermediate(sizes: Sizes, experts: int) -> int:
    """Of the layers without experts; 0 where every layer has them."""
    if experts:
        return sizes.find("intermediate_size", "n_inner", "ffn_hidden_size")
    return sizes.need("intermediate_size", "n_inner", "ffn_hidden_size")


def _experts(sizes: Sizes) -> int:
    names = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
    return sizes.find(*names, most=MOST_EXPERTS)


def _experts_per_token(sizes: Sizes, experts: int) -> int:
    if not experts:
        return 0
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "experts_per_token")
    used = sizes.find(*names)
    if used > experts:
        raise Meaningless(f"num_experts_per_tok is {used}, of {experts} experts")
    return used


def _expert_intermediate(sizes: Sizes, experts: int) -> int:
    """Where a family has no name of its own for it (Mixtral, gpt-oss), the MLP's width is the expert's."""
    if not experts:
        return 0
    own = sizes.find("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
    return own or sizes.find("intermediate_size")


def _shared(sizes: Sizes, experts: int) -> int:
    if not experts:
        return 0
    own = sizes.find("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size")
    count = sizes.find("n_shared_experts", "num_shared_experts")
    return own or count * _expert_intermediate(sizes, experts)


def _expert_layers(text: Config, sizes: Sizes, layers: int) -> int:
    if "expert_layers" in sizes.headers:
        return sizes.headers["expert_layers"]
    dense = whole(text, "first_k_dense_replace", "moe_layer_start_index", default=0)
    listed = text.get("mlp_only_layers")
    step = whole(text, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", default=1)
    alone = len(listed) if isinstance(listed, list) else 0
    return max(1, (layers - min(dense, layers)) // step - alone)


def _tied(config: Config, text: Config, kind: str, headers: Mapping[str, int]) -> bool:
    for source in (text, config):
        if isinstance(source.get("tie_word_embeddings"), bool):
            return bool(source["tie_word_embeddings"])
    if headers:
        return "head" not in headers
    return kind in TIED


def _rotary(text: Config, head_dim: int, latent: bool) -> int:
    """Dimensions that are rotated."""
    if latent:
        return whole(text, "qk_rope_head_dim", default=64)
    rope = within(text, "rope_parameters", "rope_scaling")
    partial = rope.get("partial_rotary_factor") or text.get("partial_rotary_factor") or 1.0
    if not isinstance(partial, int | float) or not 0 < partial <= 1:
        raise Meaningless(f"partial_rotary_factor is {str(partial)[:40]!r}")
    return int(head_dim * partial)


def _latent_head_dim(text: Config) -> int:
    """Of queries and keys and of values, in the middle: what one head multiplies for a pair of tokens."""
    queries = whole(text, "qk_nope_head_dim", default=128) + whole(text, "qk_rope_head_dim", default=64)
    return (queries + whole(text, "v_head_dim", default=128)) // 2


def _latent_copies(text: Config, attention: tuple[AttentionLayers, ...], heads: int) -> int:
    """Source: process_weights_after_loading of vLLM's mla_attention, which keeps kv_b_proj's two halves
    rearranged beside it."""
    layers = sum(each.layers for each in attention if each.kind is Attention.LATENT)
    if not layers:
        return 0
    width = whole(text, "qk_nope_head_dim", default=128) + whole(text, "v_head_dim", default=128)
    return layers * heads * width * whole(text, "kv_lora_rank", default=512) * 2


# --- what headers say ------------------------------------------------------------------------------------


def header_sizes(tensors: Iterable[Tensor]) -> dict[str, int]:
    """Sizes of the decoder that its tensors' shapes tell, under the config's keys and a few of our own."""
    found: dict[str, int] = {}
    layers: set[int] = set()
    with_experts: set[int] = set()
    for tensor in tensors:
        if not is_text(tensor.name):
            continue
        number = _LAYER_NUMBER.search(tensor.name)
        if number:
            layers.add(int(number[1]))
            if ".experts." in tensor.name or tensor.name.endswith(".experts"):
                with_experts.add(int(number[1]))
        _learn(found, tensor)
    if layers and max(layers) < MOST_LAYERS:
        found["num_hidden_layers"] = len(layers)
    if with_experts:
        found["expert_layers"] = len(with_experts)
    return found


def _learn(found: dict[str, int], tensor: Tensor) -> None:
    name, shape = tensor.name, tensor.shape
    flat = len(shape) == 2 and all(shape)
    if name.endswith(("embed_tokens.weight", "wte.weight")) and flat:
        found.setdefault("vocab_size", shape[0])
        found.setdefault("hidden_size", shape[1])
    elif name.endswith(("lm_head.weight", "output_layer.weight")):
        found["head"] = 1
    elif name.endswith(("q_norm.weight", "q_layernorm.weight")) and len(shape) == 1 and shape[0] <= 512:
        found.setdefault("head_dim", shape[0])
    elif flat and (rows := _rows(name, shape)):
        for part, key in _ROWS.items():
            if part in name:
                found.setdefault(key, rows)


_ROWS = {".q_proj.": "query_rows", ".k_proj.": "key_rows", ".mlp.up_proj.": "intermediate_size"}


def _rows(name: str, shape: tuple[int, ...]) -> int:
    """Outputs of a linear, by its weight or, where that is packed, by its scales."""
    if name.endswith((".weight", ".weight_scale")):
        return shape[0]
    return shape[1] if name.endswith(".scales") else 0
