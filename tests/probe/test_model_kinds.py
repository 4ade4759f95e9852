"""Models by kind: stored weights, sizes that a config leaves out, attention, and image tokens by family."""

from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.facts import Attention, ModelPart
from autoglm_serve.core.model import ImageRule
from autoglm_serve.probe.model_facts import from_config, from_folder
from tests.probe.test_model_facts import QWEN3, folder_with

GEMMA_4B: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "mm_tokens_per_image": 256,
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}


# --- weights as they are stored --------------------------------------------------------------------------


def test_four_bit_words_count_the_weights_they_hold(tmp_path: Path) -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128}
    at = "model.layers.0.mlp.down_proj"
    tensors = {
        "model.embed_tokens.weight": ("BF16", [151_936, 1024]),
        f"{at}.qweight": ("I32", [3072, 128]),
        f"{at}.qzeros": ("I32", [24, 128]),
        f"{at}.scales": ("F16", [24, 1024]),
    }
    facts = from_folder(folder_with(tmp_path / "m", QWEN3 | {"quantization_config": awq}, tensors))
    assert (
        facts.elements(ModelPart.LAYERS, linear_only=True) == facts.elements(ModelPart.LAYERS) == 3072 * 1024
    )
    stored = sum(group.bytes for group in facts.groups if group.part is ModelPart.LAYERS)
    assert stored == 4 * (3072 * 128 + 24 * 128) + 2 * 24 * 1024
    assert facts.stored is not None
    assert (facts.stored.bits, facts.stored.group) == (4, 128)


def test_bits_that_the_config_does_not_say_are_seen_in_a_projection(tmp_path: Path) -> None:
    config = QWEN3 | {
        "quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}
    }
    tensors = {
        "model.layers.0.self_attn.o_proj.weight_packed": ("I32", [1024, 2048 // 4]),
        "model.layers.0.self_attn.o_proj.weight_scale": ("BF16", [1024, 16]),
    }
    facts = from_folder(folder_with(tmp_path / "m", config, tensors))
    assert facts.stored is not None
    assert facts.stored.bits == 8
    assert facts.elements(ModelPart.LAYERS, linear_only=True) == 1024 * 2048


def test_fused_experts_are_linears_of_experts(tmp_path: Path) -> None:
    config = QWEN3 | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    tensors = {
        "model.layers.0.mlp.experts.gate_up_proj": ("BF16", [8, 1024, 1024]),
        "model.layers.0.mlp.experts.down_proj": ("BF16", [8, 1024, 512]),
        "model.layers.0.mlp.gate.weight": ("BF16", [8, 1024]),
    }
    facts = from_folder(folder_with(tmp_path / "m", config, tensors))
    routed = [group for group in facts.groups if group.routed]
    assert all(group.linear for group in routed)
    assert sum(group.elements for group in routed) == 8 * 1024 * 1536
    assert facts.text.expert_layers == 1


def test_a_quantised_config_without_headers_implies_quantised_weights() -> None:
    plain = from_config("m", QWEN3)
    fp8 = from_config("m", QWEN3 | {"quantization_config": {"quant_method": "fp8"}})
    four = from_config("m", QWEN3 | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert plain.parameters == fp8.parameters == four.parameters
    assert plain.bytes > fp8.bytes > four.bytes
    assert fp8.stored is not None
    assert fp8.stored.floating


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    tensors = {
        "model.layers.27.mlp.up_proj.weight": ("BF16", [3072, 1024]),
        "model.layers.28.mlp.up_proj.weight": ("BF16", [3072, 1024]),
        "mtp.layers.0.mlp.up_proj.weight": ("BF16", [3072, 1024]),
    }
    facts = from_folder(folder_with(tmp_path / "m", QWEN3, tensors))
    assert facts.parameters == 3072 * 1024


# --- sizes that a config leaves out ----------------------------------------------------------------------


def test_sizes_are_read_off_the_headers(tmp_path: Path) -> None:
    at = "model.language_model.layers"
    tensors = {
        "model.language_model.embed_tokens.weight": ("BF16", [262_208, 2560]),
        f"{at}.0.self_attn.q_proj.weight": ("BF16", [2048, 2560]),
        f"{at}.0.self_attn.k_proj.weight": ("BF16", [1024, 2560]),
        f"{at}.0.self_attn.q_norm.weight": ("BF16", [256]),
        f"{at}.0.mlp.up_proj.weight": ("BF16", [10_240, 2560]),
    }
    text = from_folder(folder_with(tmp_path / "m", GEMMA_4B, tensors)).text
    assert (text.vocab, text.hidden, text.heads, text.kv_heads, text.head_dim) == (262_208, 2560, 8, 4, 256)


def test_without_headers_the_class_s_defaults_hold() -> None:
    facts = from_config("m", GEMMA_4B)
    text = facts.text
    assert (text.vocab, text.heads, text.kv_heads, text.head_dim) == (262_208, 8, 4, 256)
    assert text.tied_embeddings
    assert facts.parameters == pytest.approx(4.3e9, rel=0.01)


def test_a_model_of_experts_alone_needs_no_other_width() -> None:
    experts = {key: value for key, value in QWEN3.items() if key != "intermediate_size"} | {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
    }
    assert from_config("m", experts).text.intermediate == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_key_value_heads": 5}, "do not divide"),
        ({"num_experts": 4, "num_experts_per_tok": 8}, "of 4 experts"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_experts": 10**6}, "num_experts"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types names 3 layers of 28"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}},
            "weight_block_size",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 400}}, "bits"),
        ({"vision_config": {"hidden_size": 8, "mlp_ratio": "big"}}, "mlp_ratio"),
    ],
)
def test_a_config_that_lies_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        from_config("m", QWEN3 | change)


def test_an_unknown_architecture_says_which_way_it_may_be_off() -> None:
    vision = {"hidden_size": 768, "num_heads": 12, "depth": 12, "patch_size": 14}
    (note,) = from_config("m", QWEN3 | {"architectures": ["FooForX"], "vision_config": vision}).notes
    assert "a twentieth more is kept back" in note
    assert "takes fewer tokens than planned" in note


# --- attention kinds -------------------------------------------------------------------------------------


def test_every_sixth_layer_of_gemma_3_sees_all() -> None:
    kinds = {each.kind: each for each in from_config("m", GEMMA_4B).text.kept}
    assert kinds[Attention.FULL].layers == 5
    assert (kinds[Attention.SLIDING].layers, kinds[Attention.SLIDING].window_tokens) == (29, 1024)


def test_a_window_that_is_switched_off_is_none() -> None:
    config = QWEN3 | {"sliding_window": 4096, "use_sliding_window": False}
    assert from_config("m", config).text.attention == ()


def test_latent_attention() -> None:
    config = QWEN3 | {
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "num_key_value_heads": 16,
    }
    text = from_config("m", config).text
    (kept,) = text.kept
    assert (kept.kind, kept.head_dim, kept.token_elements(8)) == (Attention.LATENT, 576, 576)
    assert text.head_dim == 256


def test_recurrent_layers_keep_a_state() -> None:
    config = QWEN3 | {
        "model_type": "qwen3_5_moe_text",
        "full_attention_interval": 4,
        "linear_num_value_heads": 32,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    kinds = {each.kind: each for each in from_config("m", config).text.kept}
    assert (kinds[Attention.FULL].layers, kinds[Attention.STATE].layers) == (7, 21)
    assert kinds[Attention.STATE].state_bytes == 8192 * 3 * 2 + 32 * 128 * 128 * 4


# --- image tokens by family ------------------------------------------------------------------------------


def test_gemma_has_as_many_tokens_for_every_image() -> None:
    vision = from_config("m", GEMMA_4B).vision
    assert vision is not None
    assert vision.geometry.rule is ImageRule.FIXED
    assert vision.geometry.tokens(1080, 2400) == vision.longest_tokens == 256
    assert vision.geometry.merge**2 * 256 == 4096  # its tower works on every patch


def test_the_tower_of_qwen2_vl_is_as_wide_as_its_patches() -> None:
    """Its `hidden_size` is the decoder's; the tower's is `embed_dim`."""
    config = QWEN3 | {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
        },
    }
    vision = from_config("m", config).vision
    assert vision is not None
    assert (vision.hidden, vision.intermediate) == (1280, 5120)


def test_tiles_and_grids() -> None:
    tower = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}
    intern = from_config(
        "m", QWEN3 | {"architectures": ["InternVLChatModel"], "vision_config": tower | {"image_size": 448}}
    ).vision
    assert intern is not None
    assert intern.geometry.tokens(448, 448) == 256  # one tile needs no thumbnail
    assert intern.geometry.tokens(1080, 2400) == 11 * 256  # two columns of five are as near as one of two
    assert intern.longest_tokens == 13 * 256
    llava = from_config(
        "m",
        QWEN3
        | {
            "architectures": ["LlavaNextForConditionalGeneration"],
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
            "vision_config": tower | {"image_size": 336},
        },
    ).vision
    assert llava is not None
    assert llava.geometry.tokens(672, 672) == llava.longest_tokens == 576 + 48 * 48 + 48
    assert llava.geometry.rule is ImageRule.GRIDS
