"""Model facts: from the shipped profile, from folders with headers, and from folders that are no model."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.errors import ExitCode, ModelError
from autoglm_serve.core.facts import ModelPart, Shard
from autoglm_serve.core.model import Capability
from autoglm_serve.probe.model_facts import from_config, from_folder, from_profile

QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}


def folder_with(path: Path, config: Mapping[str, Any], tensors: Mapping[str, tuple[str, list[int]]]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            **{
                name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
                for name, (dtype, shape) in tensors.items()
            },
        }
    ).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_the_shipped_profile_has_every_parameter_of_the_published_model() -> None:
    facts = from_profile("zai-org/AutoGLM-Phone-9B")
    assert facts is not None
    assert facts.parameters == 10_292_777_472
    assert facts.elements(ModelPart.VISION) == 892_498_432
    assert facts.text.kv_heads == 2
    assert facts.vision is not None
    assert facts.vision.longest_tokens == 6144
    assert facts.vision.geometry.tokens(1080, 2400) == 3354
    assert facts.content_format == "string"
    assert facts.recommended_max_model_len == 25_480


def test_other_repositories_have_no_profile() -> None:
    assert from_profile("someone/else") is None


def test_a_folder_s_headers_are_read_and_sorted_by_how_they_split(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": ("BF16", [151936, 1024]),
        "model.layers.0.self_attn.q_proj.weight": ("BF16", [2048, 1024]),
        "model.layers.0.self_attn.k_proj.weight": ("BF16", [1024, 1024]),
        "model.layers.0.input_layernorm.weight": ("BF16", [1024]),
        "model.layers.0.mlp.down_proj.weight": ("F8_E4M3", [1024, 3072]),
    }
    facts = from_folder(folder_with(tmp_path / "m", QWEN3, tensors))
    assert facts.from_headers
    assert facts.known
    by_shard = {(group.shard, group.dtype): group.elements for group in facts.groups}
    assert by_shard == {
        (Shard.VOCAB, "BF16"): 151936 * 1024,
        (Shard.SPLIT, "BF16"): 2048 * 1024,
        (Shard.KV, "BF16"): 1024 * 1024,
        (Shard.COPY, "BF16"): 1024,
        (Shard.SPLIT, "F8_E4M3"): 1024 * 3072,
    }


def test_without_headers_the_config_implies_the_tensors() -> None:
    facts = from_config("qwen3-0.6b", QWEN3)
    assert not facts.from_headers
    assert facts.parameters == pytest.approx(596_049_920, rel=0.001)


def test_an_unknown_architecture_is_kept_and_marked() -> None:
    facts = from_config("x", {**QWEN3, "architectures": ["FooForCausalLM"]})
    assert not facts.known
    assert "FooForCausalLM" in facts.notes[0]


def test_speech_and_sight_are_capabilities() -> None:
    vl = from_config(
        "vl",
        {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            **{key: value for key, value in QWEN3.items() if key != "architectures"},
            "vision_config": {
                "hidden_size": 1280,
                "depth": 32,
                "num_heads": 16,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "intermediate_size": 3420,
                "fullatt_block_indexes": [7, 15, 23, 31],
            },
        },
    )
    assert Capability.VISION in vl.capabilities
    assert vl.vision is not None
    assert vl.vision.full_attention_layers == 4
    speech = from_config(
        "asr",
        {
            "architectures": ["GlmAsrForConditionalGeneration"],
            "text_config": {k: v for k, v in QWEN3.items() if k != "architectures"},
            "audio_config": {"hidden_size": 1280, "num_hidden_layers": 32, "intermediate_size": 5120},
        },
    )
    assert Capability.TRANSCRIPTION in speech.capabilities
    assert speech.elements(ModelPart.AUDIO) > 600e6


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "intermediate_size"]
)
def test_a_missing_key_is_named(key: str) -> None:
    config = {name: value for name, value in QWEN3.items() if name != key}
    with pytest.raises(ModelError, match=f"lacks {key}") as caught:
        from_config("m", config)
    assert caught.value.exit_code is ExitCode.MODEL


def test_a_lora_folder_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter"):
        from_folder(tmp_path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model"):
        from_folder(tmp_path)
    with pytest.raises(ModelError, match="is not there"):
        from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError):
        from_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x05", struct.pack("<Q", 2**40), struct.pack("<Q", 4) + b"{{{{"])
def test_a_file_that_is_no_safetensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        from_folder(tmp_path)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", QWEN3, {"a.weight": ("BF16", [1])})
    index = {"weight_map": {"a.weight": "model.safetensors", "b.weight": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-2\.safetensors is not there"):
        from_folder(folder)


# --- configs that mean nothing ---------------------------------------------------------------------------

VISION: dict[str, Any] = {"hidden_size": 768, "num_heads": 12, "depth": 12, "patch_size": 14}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_hidden_layers": 2**63}, "num_hidden_layers"),
        ({"num_hidden_layers": "28"}, "num_hidden_layers"),
        ({"num_key_value_heads": [["2"]]}, "num_key_value_heads"),
        ({"head_dim": {"a": 1}}, "head_dim"),
        ({"head_dim": -128}, "head_dim"),
        ({"max_position_embeddings": float("inf")}, "max_position_embeddings"),
        ({"vocab_size": True}, "vocab_size"),
        ({"num_experts": "many"}, "num_experts"),
        ({"rope_scaling": {"partial_rotary_factor": "half"}}, "partial_rotary_factor"),
        ({"vision_config": VISION | {"patch_size": "big"}}, "patch_size"),
        ({"vision_config": VISION | {"num_heads": 1.5}}, "num_heads"),
        ({"vision_config": VISION | {"image_size": float("nan")}}, "image_size"),
    ],
)
def test_a_size_that_means_nothing_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        from_config("m", QWEN3 | change)


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": 5},
        {"text_config": None},
        {"text_config": []},
        {"rope_scaling": 1.5},
        {"quantization_config": "fp8"},
        {"head_dim": None},
        {"hidden_size": 1024.0},
        {"hidden_size": 8, "head_dim": None},  # fewer than heads
    ],
)
def test_what_is_no_object_counts_as_not_there(change: dict[str, Any]) -> None:
    assert from_config("m", QWEN3 | change).text.head_dim >= 1


def test_the_bounds_of_images_are_areas_or_edges() -> None:
    """GLM and Qwen write areas under `longest_edge`, others an edge, CLIP a bare number."""

    def most(size: object) -> int:
        facts = from_config("m", QWEN3 | {"vision_config": VISION}, preprocessor={"size": size})
        assert facts.vision is not None
        return facts.vision.geometry.max_pixels

    assert most({"longest_edge": 9_633_792, "shortest_edge": 12_544}) == 9_633_792
    assert most({"longest_edge": 2048, "shortest_edge": 378}) == 2048**2
    assert most(336) == most({"height": 384, "width": 384}) == 16_384 * 14**2


def test_an_image_has_at_least_one_token() -> None:
    facts = from_config("m", QWEN3 | {"vision_config": VISION}, preprocessor={"max_pixels": 1})
    assert facts.vision is not None
    assert facts.vision.longest_tokens == 1


@pytest.mark.parametrize("text", [" " * (17 * 2**20) + "{}", "[" * 100_000], ids=["huge", "nested"])
def test_a_config_that_is_none_is_not_taken_in(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "BF16", "shape": ["big", 2]}},
        {"w": {"dtype": "BF16", "shape": [-1, 2]}},
        {"w": {"dtype": "BF16", "shape": 3}},
        {"w": 5},
        [],
    ],
)
def test_a_header_that_means_nothing(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        from_folder(tmp_path)


@pytest.mark.parametrize("index", ["[]", '{"weight_map": [1]}', "[" * 100_000], ids=["list", "map", "nested"])
def test_an_index_that_is_none(tmp_path: Path, index: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match="no safetensors index"):
        from_folder(tmp_path)


def test_a_header_that_points_outside_its_file(tmp_path: Path) -> None:
    header = {"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 10**15]}}
    text = json.dumps(header).encode()
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match="cannot be read as safetensors") as caught:
        from_folder(tmp_path)
    assert "points to byte" in caught.value.why


def test_headers_of_a_part_of_the_model_are_noticed(tmp_path: Path) -> None:
    part = {"model.layers.0.self_attn.q_proj.weight": ("BF16", [2048, 1024])}
    facts = from_folder(folder_with(tmp_path / "m", QWEN3, part))
    assert any("may not be here as a whole" in note for note in facts.notes)
