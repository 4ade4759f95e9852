"""What a decoder's layers keep of the tokens before, as its config says: all, a window, a latent, a state.

Sources: transformers' configuration classes for the keys; is_deepseek_mla and the state shapes of vLLM's
`mamba_utils` for what an engine keeps.
"""

from collections import Counter

from autoglm_serve.core.facts import Attention, AttentionLayers
from autoglm_serve.probe.config_values import Config, Meaningless, whole, words
from autoglm_serve.probe.families import DEFAULTS, NOT_LATENT, WINDOW_PATTERN

_WORDS = {
    "full_attention": Attention.FULL,
    "attention": Attention.FULL,
    "global": Attention.FULL,
    "sliding_attention": Attention.SLIDING,
    "chunked_attention": Attention.SLIDING,
    "local": Attention.SLIDING,
}
"""Any other word of a `layer_types` list is a layer with a state."""
_HYBRID_MARKS = {"*": Attention.FULL, "M": Attention.STATE}
"""Of `hybrid_override_pattern`; a dash is an MLP alone."""


def attention_layers(
    text: Config, kind: str, layers: int, kv_heads: int, head_dim: int, positions: int
) -> tuple[AttentionLayers, ...]:
    """Kinds of layers; empty where all keep keys and values of every token. Raises Meaningless."""
    rank = latent_width(text, kind)
    counts = _counts(text, kind, layers, positions)
    if not rank and set(counts) == {Attention.FULL}:
        return ()
    found = []
    for each, number in sorted(counts.items()):
        if each is Attention.STATE:
            found.append(AttentionLayers(kind=each, layers=number, state_bytes=state_bytes(text)))
        elif rank:
            found.append(AttentionLayers(kind=Attention.LATENT, layers=number, heads=1, head_dim=rank))
        else:
            found.append(
                AttentionLayers(
                    kind=each,
                    layers=number,
                    heads=kv_heads,
                    head_dim=head_dim,
                    value_dim=head_dim,
                    window_tokens=_window(text, kind) if each is Attention.SLIDING else 0,
                )
            )
    return tuple(found)


def latent_width(text: Config, kind: str) -> int:
    """Numbers of one token's latent vector and its rotated key; 0 without latent attention."""
    rank = whole(text, "kv_lora_rank", default=0)
    if not rank or kind in NOT_LATENT:
        return 0
    return rank + whole(text, "qk_rope_head_dim", default=64)


def _counts(text: Config, kind: str, layers: int, positions: int) -> Counter[Attention]:
    listed = words(text, "layer_types") or words(text, "layers_block_type")
    if listed:
        if len(listed) != layers:
            raise Meaningless(f"layer_types names {len(listed)} layers of {layers}")
        return Counter(_WORDS.get(word, Attention.STATE) for word in listed)
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        return Counter(_HYBRID_MARKS[mark] for mark in pattern if mark in _HYBRID_MARKS)
    interval = whole(text, "full_attention_interval", "attn_layer_period", default=0)
    if interval:
        full = max(1, layers // interval)
        return +Counter({Attention.FULL: full, Attention.STATE: layers - full})
    return _windowed(text, kind, layers, positions)


def _windowed(text: Config, kind: str, layers: int, positions: int) -> Counter[Attention]:
    window = _window(text, kind)
    if not window or window >= positions or text.get("use_sliding_window") is False:
        return Counter({Attention.FULL: layers})
    own = whole(text, "sliding_window_pattern", "_sliding_window_pattern", default=0)
    every = own or WINDOW_PATTERN.get(kind, 0)
    if every:
        full = layers // every
    elif text.get("use_sliding_window"):
        full = min(layers, whole(text, "max_window_layers", default=layers))
    elif kind.startswith("llama4"):
        full = layers // 4
    else:
        full = 0 if kind in ("mistral", "phi3", "mixtral", "starcoder2") else layers
    return +Counter({Attention.FULL: full, Attention.SLIDING: layers - full})


def _window(text: Config, kind: str) -> int:
    usual = DEFAULTS.get(kind, {}).get("sliding_window", 0)
    return whole(text, "sliding_window", "attention_chunk_size", default=usual)


def state_bytes(text: Config) -> int:
    """Of one sequence in one recurrent layer: the convolution's last inputs and the state itself."""
    if "linear_num_value_heads" in text:
        return _delta_net(text)
    state = whole(text, "ssm_state_size", "mamba_d_state", "state_size", default=0)
    if state:
        return _mamba(text, state)
    hidden = whole(text, "hidden_size", default=2048)
    return hidden * max(1, whole(text, "conv_L_cache", default=4) - 1) * 2


def _delta_net(text: Config) -> int:
    """Source: gated_delta_net_state_shape of vLLM's mamba_utils."""
    keys = whole(text, "linear_num_key_heads", default=16) * whole(text, "linear_key_head_dim", default=128)
    value_dim = whole(text, "linear_value_head_dim", default=128)
    values = whole(text, "linear_num_value_heads", default=32) * value_dim
    kernel = whole(text, "linear_conv_kernel_dim", default=4)
    wide = _state_is_wide(text)
    key_dim = whole(text, "linear_key_head_dim", default=128)
    return (2 * keys + values) * (kernel - 1) * 2 + values * key_dim * (4 if wide else 2)


def _state_is_wide(text: Config) -> bool:
    said = text.get("mamba_ssm_dtype")
    return said == "float32" if said else str(text.get("model_type", "")).startswith("qwen3_5")


def _mamba(text: Config, state: int) -> int:
    """Source: mamba2_state_shape and mamba1_state_shape of vLLM's mamba_utils."""
    hidden = whole(text, "hidden_size", default=2048)
    heads = whole(text, "mamba_num_heads", "mamba_n_heads", default=0)
    kernel = whole(text, "conv_kernel", "mamba_d_conv", "conv_kernel_size", default=4)
    if heads:
        inner = heads * whole(text, "mamba_head_dim", "mamba_d_head", default=64)
        mixed = inner + 2 * whole(text, "n_groups", "mamba_n_groups", default=1) * state
        return mixed * (kernel - 1) * 2 + inner * state * 2
    inner = hidden * whole(text, "mamba_expand", "expand", default=2)
    return inner * (kernel - 1) * 2 + inner * state * 2
