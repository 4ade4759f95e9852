"""Architectures this project has rules for, and the sizes that their configs leave to the classes' defaults.

Owns what no config says: which rule counts a family's image tokens, how its tower is spread over GPUs, what
its engine builds beside the weights. Sources: vLLM's models/registry.py and its model files, transformers'
configuration classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is known of an architecture beyond its config."""

    vision: str | None = None
    """Which rule counts its image tokens."""
    tower_split: bool = True
    encoder_data_parallel: bool = False
    speech: bool = False
    mrope: bool = False
    """Its engine builds a rotary table four times as long as the context (room for video positions)."""
    frames: int = 1
    """Frames that the processor's pixel bound counts for a still image."""
    content_format: str | None = None
    """string: its chat template prints system messages as they come, a list of parts as Python would."""


_GLM = Family(vision="glm4v", encoder_data_parallel=True, mrope=True, frames=2, content_format="string")
_QWEN = Family(vision="qwen", encoder_data_parallel=True, mrope=True)
_INTERN = Family(vision="internvl", encoder_data_parallel=True)

FAMILIES: Mapping[str, Family] = {
    "Glm4vForConditionalGeneration": _GLM,
    "Glm4vMoeForConditionalGeneration": _GLM,
    "Qwen2VLForConditionalGeneration": Family(vision="qwen", mrope=True),
    "Qwen2_5_VLForConditionalGeneration": _QWEN,
    "Qwen3VLForConditionalGeneration": _QWEN,
    "Qwen3VLMoeForConditionalGeneration": _QWEN,
    "Qwen3_5ForConditionalGeneration": _QWEN,
    "Qwen3_5MoeForConditionalGeneration": _QWEN,
    "InternVLChatModel": _INTERN,
    "InternVLForConditionalGeneration": _INTERN,
    "Gemma3ForConditionalGeneration": Family(vision="gemma3", tower_split=True),
    "LlavaForConditionalGeneration": Family(vision="llava"),
    "LlavaNextForConditionalGeneration": Family(vision="llava_next"),
    "GlmAsrForConditionalGeneration": Family(speech=True),
    **{
        name: Family()
        for name in (
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "MixtralForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3ForCausalLM",
            "Qwen3MoeForCausalLM",
            "Qwen3NextForCausalLM",
            "Qwen3_5ForCausalLM",
            "Qwen3_5MoeForCausalLM",
            "Glm4ForCausalLM",
            "Glm4MoeForCausalLM",
            "Glm4MoeLiteForCausalLM",
            "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM",
            "Gemma2ForCausalLM",
            "Gemma3ForCausalLM",
            "GptOssForCausalLM",
            "Phi3ForCausalLM",
        )
    },
}

RULES_IN_WORDS: Mapping[str, str] = {
    "glm4v": "GLM-4.1V: patches at the image's own size",
    "qwen": "Qwen-VL: patches at the image's own size",
    "internvl": "InternVL: tiles of one size and a thumbnail",
    "gemma3": "Gemma 3: as many for every image",
    "llava": "LLaVA: as many for every image",
    "llava_next": "LLaVA-NeXT: the best of a list of grids and a thumbnail",
}

DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048,
    },
    "mistral": {
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
    },
    "qwen2": {
        "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32_768,
    },
    "qwen3": {"head_dim": 128, "max_position_embeddings": 32_768},
    "qwen3_moe": {"head_dim": 128, "max_position_embeddings": 32_768},
    "gemma2": {"head_dim": 256, "max_position_embeddings": 8192, "sliding_window": 4096},
    "gemma3_text": {
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "max_position_embeddings": 131_072, "sliding_window": 4096,
    },
}  # fmt: skip
"""Sizes that a class of transformers takes where its config is silent, by the text model's type."""

TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text"})
"""Types whose word table is also the head unless the config says otherwise."""

WINDOW_PATTERN: Mapping[str, int] = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "exaone4": 4}
"""Every so manieth layer looks at all tokens, the others at a window, where the config gives no list."""

NOT_LATENT = frozenset({"minicpm3"})
"""Types with `kv_lora_rank` that engines run with whole keys and values."""
