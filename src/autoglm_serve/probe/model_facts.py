"""Model facts from config.json: dimensions, vision tower, limits; and from safetensors headers, the tensors.

It reads headers only, never weights; what it cannot know
it leaves out, and says in `notes`. Architectures it has rules for are in FAMILIES; any other gets facts
that make the planner careful.
"""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.facts import ModelFacts, TextFacts, VisionFacts
from autoglm_serve.core.model import Capability, VisionGeometry
from autoglm_serve.probe.checkpoint import Tensor, groups, read_headers

Config = Mapping[str, Any]

HUB_ANSWERS_S = 5.0
LARGEST_JSON_BYTES = 16 * 2**20
"""Real configs have a few KiB; a larger file is something else."""
LARGEST_NUMBER = 2**31 - 1
MOST_LAYERS = 10_000
LONGEST_EDGE_PX = 16_384
"""A `longest_edge` up to this is one; a larger one is an area, as GLM-4.1V and Qwen write it."""


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


FAMILIES: Mapping[str, Family] = {
    "Glm4vForConditionalGeneration": Family(
        vision="glm4v", encoder_data_parallel=True, mrope=True, frames=2, content_format="string"
    ),
    "Glm4vMoeForConditionalGeneration": Family(
        vision="glm4v", encoder_data_parallel=True, mrope=True, frames=2, content_format="string"
    ),
    "Qwen2VLForConditionalGeneration": Family(vision="qwen", mrope=True),
    "Qwen2_5_VLForConditionalGeneration": Family(vision="qwen", encoder_data_parallel=True, mrope=True),
    "Qwen3VLForConditionalGeneration": Family(vision="qwen", encoder_data_parallel=True, mrope=True),
    "Qwen3VLMoeForConditionalGeneration": Family(vision="qwen", encoder_data_parallel=True, mrope=True),
    "InternVLChatModel": Family(vision="internvl", encoder_data_parallel=True),
    "InternVLForConditionalGeneration": Family(vision="internvl", encoder_data_parallel=True),
    "GlmAsrForConditionalGeneration": Family(speech=True),
    "LlamaForCausalLM": Family(),
    "MistralForCausalLM": Family(),
    "Qwen2ForCausalLM": Family(),
    "Qwen3ForCausalLM": Family(),
    "Qwen3MoeForCausalLM": Family(),
    "Glm4ForCausalLM": Family(),
    "Glm4MoeForCausalLM": Family(),
}

PROFILES: Mapping[str, str] = {
    "zai-org/AutoGLM-Phone-9B": "autoglm-phone-9b.json",
    "zai-org/AutoGLM-Phone-9B-Multilingual": "autoglm-phone-9b.json",
    "ZhipuAI/AutoGLM-Phone-9B": "autoglm-phone-9b.json",
    "ZhipuAI/AutoGLM-Phone-9B-Multilingual": "autoglm-phone-9b.json",
}
"""Models whose config ships with this package, so that a plan needs no network."""


# --- where a config comes from ---------------------------------------------------------------------------


def from_profile(reference: str) -> ModelFacts | None:
    """Facts of a model this package ships the config of; None for any other."""
    name = PROFILES.get(reference)
    if name is None:
        return None
    profile = json.loads(resources.files(__package__).joinpath("profiles", name).read_text())
    return from_config(
        reference,
        profile["config"],
        preprocessor=profile["preprocessor"],
        recommended_max_model_len=profile["recommended_max_model_len"],
    )


def from_folder(folder: Path, reference: str | None = None) -> ModelFacts:
    """Facts of a model in a local folder. Raises ModelError where it holds none that an engine could load."""
    name = reference or str(folder)
    if not (folder / "config.json").is_file():
        raise _no_model(folder)
    config = _json(folder / "config.json")
    preprocessor = next(
        (_json(path) for path in (folder / "preprocessor_config.json",) if path.is_file()), {}
    )
    return from_config(name, config, preprocessor=preprocessor, tensors=read_headers(folder))


def from_hub(reference: str, *, endpoint: str | None = None, cache: Path | None = None) -> ModelFacts:
    """Facts of a repository on the Hugging Face hub: two small files, and tensor headers by range requests.

    `endpoint` and `cache` are huggingface_hub's own where they are None. Raises ModelError where the hub
    cannot be reached or has no such model.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    api = hub.HfApi(endpoint=endpoint)
    unreachable = _why_unreachable(api.endpoint)
    if unreachable:
        raise ModelError(
            f"{reference} cannot be read from the hub.",
            why=unreachable,
            next_step="check the network, or give --model a local folder",
        )
    try:
        config = _json(Path(api.hf_hub_download(reference, "config.json", cache_dir=cache)))
        metadata = api.get_safetensors_metadata(reference)
    except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
        raise ModelError(
            f"{reference} has no safetensors weights that can be read.",
            why=str(error).splitlines()[0],
            next_step="plan for one in safetensors; a GGUF file is run by `autoglm serve --model FILE`",
        ) from error
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as error:
        raise ModelError(
            f"{reference} cannot be read from the hub.",
            why=str(error).splitlines()[0],
            next_step="check the name and the network, or give --model a local folder",
        ) from error
    tensors = [
        Tensor(name=name, shape=tuple(info.shape), dtype=info.dtype)
        for file in metadata.files_metadata.values()
        for name, info in file.tensors.items()
    ]
    preprocessor: Config = {}
    with suppress(OSError, hub.errors.EntryNotFoundError):  # text models have none
        preprocessor = _json(
            Path(api.hf_hub_download(reference, "preprocessor_config.json", cache_dir=cache))
        )
    return from_config(reference, config, preprocessor=preprocessor, tensors=tensors)


def _why_unreachable(endpoint: str) -> str:
    """Empty where the hub answers, or where a proxy is in between. The hub's own client tries for 23 s."""
    from urllib.request import getproxies  # here: slow to import, and only needed for a hub

    if getproxies():
        return ""
    address = urlsplit(endpoint)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=HUB_ANSWERS_S).close()
    except OSError as error:
        return f"{address.netloc} cannot be reached: {error.strerror or error}"
    return ""


def _no_model(folder: Path) -> ModelError:
    if (folder / "adapter_config.json").is_file():
        return ModelError(
            f"{folder} holds a LoRA adapter, not a model.",
            why="it has adapter_config.json and no config.json",
            next_step="give --model the base model, and hand the adapter to the engine after -- "
            "(vLLM: --enable-lora --lora-modules NAME=FOLDER), or merge it first",
        )
    if not folder.is_dir():
        return ModelError(f"{folder} is not there.", next_step="give --model a folder or a hub repository")
    return ModelError(
        f"{folder} is no model.",
        why="it has no config.json",
        next_step="give --model the folder with config.json and the safetensors files",
    )


def _json(path: Path) -> Config:
    try:
        if (size := path.stat().st_size) > LARGEST_JSON_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read.", why=str(error), next_step="download the file again"
        ) from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} is no JSON object.", next_step="download the file again")
    return loaded


# --- what a config says ----------------------------------------------------------------------------------


def from_config(
    reference: str,
    config: Config,
    *,
    preprocessor: Config | None = None,
    tensors: Iterable[Tensor] = (),
    recommended_max_model_len: int | None = None,
) -> ModelFacts:
    """Facts from a parsed config. Raises ModelError naming the key that is missing or means nothing."""
    architecture = _architecture(config)
    family = FAMILIES.get(architecture)
    rules = family or Family()
    listed = tuple(tensors)
    try:
        text = _text(reference, config, rules)
        vision = _vision(config, preprocessor or {}, rules)
        derived = listed or tuple(_derived(config, text, vision, _dtype(config)))
    except _Meaningless as problem:
        raise ModelError(
            f"The config.json of {reference} cannot be planned with: {problem}.",
            why="the planner takes sizes from there and from preprocessor_config.json",
            next_step="download the files again, or mend them",
        ) from problem
    quantization = _quantization(config)
    return ModelFacts(
        reference=reference,
        architecture=architecture,
        known=family is not None,
        text=text,
        groups=groups(derived, tower_split=family is not None and rules.tower_split),
        vision=vision,
        capabilities=_capabilities(vision, rules),
        quantization=quantization,
        from_headers=bool(listed),
        content_format=rules.content_format,
        recommended_max_model_len=recommended_max_model_len,
        notes=tuple(_notes(architecture, family, bool(listed), quantization)),
    )


class _Meaningless(ValueError):
    """A value that cannot be what its key says."""


def _architecture(config: Config) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "unknown"


def _within(source: Config, *keys: str) -> Config:
    """The first of these objects that is there; empty where none is."""
    return next((found for key in keys if isinstance(found := source.get(key), dict) and found), {})


def _whole(source: Config, *keys: str, default: int, most: int = LARGEST_NUMBER) -> int:
    """The first of these numbers that is there and not 0; a list of sides counts as its first."""
    for key in keys:
        value = source.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if not value:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise _Meaningless(f"{key} is {str(value)[:40]!r}")
        return value
    return default


def _notes(architecture: str, family: Family | None, listed: bool, quantization: str | None) -> Iterator[str]:
    if family is None:
        yield f"{architecture} is not an architecture this planner knows: figures carry a larger margin"
    if not listed and quantization:
        yield "no safetensors header could be read: weights are counted as if they were not quantised"


def _text(reference: str, config: Config, rules: Family) -> TextFacts:
    text = _within(config, "text_config", "llm_config") or config

    def need(*keys: str, most: int = LARGEST_NUMBER) -> int:
        value = _whole(text, *keys, default=0, most=most)
        if not value:
            raise ModelError(
                f"The config.json of {reference} lacks {keys[0]}.",
                why="the planner cannot size the model without it",
                next_step="check that the folder holds a complete language model, then try again",
            )
        return value

    hidden, heads = need("hidden_size", "n_embd"), need("num_attention_heads", "n_head")
    head_dim = _whole(text, "head_dim", default=max(1, hidden // heads))
    positions = _whole(text, "max_position_embeddings", default=4096)
    experts = _whole(text, "num_experts", "n_routed_experts", "num_local_experts", default=0)
    rope = _within(text, "rope_parameters", "rope_scaling")
    partial = rope.get("partial_rotary_factor") or text.get("partial_rotary_factor") or 1.0
    if not isinstance(partial, int | float) or not 0 < partial <= 1:
        raise _Meaningless(f"partial_rotary_factor is {str(partial)[:40]!r}")
    rotary = int(head_dim * partial)
    return TextFacts(
        layers=need("num_hidden_layers", "n_layer", most=MOST_LAYERS),
        hidden=hidden,
        heads=heads,
        kv_heads=_whole(text, "num_key_value_heads", default=heads),
        head_dim=head_dim,
        intermediate=need("intermediate_size", "n_inner"),
        vocab=need("vocab_size"),
        max_positions=positions,
        tied_embeddings=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        experts=experts,
        experts_per_token=_whole(text, "num_experts_per_tok", default=0) if experts else 0,
        expert_intermediate=_whole(text, "moe_intermediate_size", default=0) if experts else 0,
        rotary_table_bytes=positions * (4 if rules.mrope else 1) * rotary * 2,
    )


def _vision(config: Config, preprocessor: Config, rules: Family) -> VisionFacts | None:
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or not vision.get("hidden_size"):
        return None
    hidden = _whole(vision, "hidden_size", default=0)
    glm = rules.vision == "glm4v"
    geometry = _geometry(vision, preprocessor, rules)
    cell = geometry.patch_px * geometry.merge
    depth = _whole(vision, "depth", "num_hidden_layers", default=24, most=MOST_LAYERS)
    windowed = vision.get("fullatt_block_indexes")
    tiled = rules.vision == "internvl"
    return VisionFacts(
        depth=depth,
        hidden=hidden,
        heads=_whole(vision, "num_heads", "num_attention_heads", default=16),
        intermediate=_whole(vision, "out_hidden_size" if glm else "intermediate_size", default=4 * hidden),
        gated=glm or "2_5" in str(config.get("model_type")),
        geometry=geometry,
        full_attention_layers=0 if tiled else len(windowed) if isinstance(windowed, list) else depth,
        longest_tokens=max(1, geometry.max_pixels // cell**2),
        max_pixels_flag=rules.vision in ("glm4v", "qwen"),
        encoder_data_parallel=rules.encoder_data_parallel,
    )


def _geometry(vision: Config, preprocessor: Config, rules: Family) -> VisionGeometry:
    patch_px = _whole(vision, "patch_size", default=14)
    if rules.vision == "internvl":
        # Fixed 448x448 tiles of 256 tokens, up to 12 and a thumbnail.
        return VisionGeometry(patch_px=patch_px, merge=2, min_pixels=448 * 448, max_pixels=13 * 448 * 448)
    merge = _whole(vision, "spatial_merge_size", default=0) or _whole(preprocessor, "merge_size", default=1)
    size = _within(preprocessor, "size")
    cell = patch_px * merge
    edge = _whole(size, "longest_edge", default=0)
    power = 2 if edge <= LONGEST_EDGE_PX else 1
    longest = edge**power or _whole(preprocessor, "max_pixels", default=16_384 * cell**2)
    shortest = _whole(size, "shortest_edge", default=0) ** power or _whole(
        preprocessor, "min_pixels", default=4 * cell**2
    )
    return VisionGeometry(
        patch_px=patch_px,
        merge=merge,
        min_pixels=shortest // rules.frames,
        max_pixels=longest // rules.frames,
    )


def _capabilities(vision: VisionFacts | None, rules: Family) -> frozenset[Capability]:
    if rules.speech:
        return frozenset({Capability.CHAT, Capability.TRANSCRIPTION})
    return frozenset({Capability.CHAT, Capability.VISION} if vision else {Capability.CHAT})


def _quantization(config: Config) -> str | None:
    found = _within(config, "quantization_config") or _within(
        _within(config, "text_config"), "quantization_config"
    )
    return str(found.get("quant_method", "unknown")) if found else None


def _dtype(config: Config) -> str:
    text = _within(config, "text_config")
    name = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16")
    return {"float32": "F32", "float16": "F16"}.get(name, "BF16")


# --- the tensors that a config implies -------------------------------------------------------------------


def implied_tensors(config: Config) -> tuple[Tensor, ...]:
    """Every tensor that a config implies, under names of our own where the config does not say."""
    rules = FAMILIES.get(_architecture(config), Family())
    text = _text("the model", config, rules)
    return tuple(_derived(config, text, _vision(config, {}, rules), _dtype(config)))


def _derived(config: Config, text: TextFacts, vision: VisionFacts | None, dtype: str) -> Iterator[Tensor]:
    shapes = dict(_text_shapes(config, text))
    if vision is not None:
        shapes |= dict(_tower_shapes(config["vision_config"], vision, text.hidden))
    if isinstance(config.get("audio_config"), dict):
        shapes |= dict(_audio_shapes(config["audio_config"], text.hidden))
    yield from (Tensor(name=name, shape=shape, dtype=dtype) for name, shape in shapes.items())


Shape = tuple[int, ...]


def _text_shapes(config: Config, text: TextFacts) -> Iterator[tuple[str, Shape]]:
    inner = _within(config, "text_config", "llm_config") or config
    dense_layers = _whole(inner, "first_k_dense_replace", default=0)
    shared_experts = _whole(inner, "n_shared_experts", default=0)
    bias = bool(inner.get("attention_bias", str(inner.get("model_type", "")).startswith(("glm4", "qwen2"))))
    query, key = text.heads * text.head_dim, text.kv_heads * text.head_dim
    norms = 4 if str(inner.get("model_type", "")).startswith("glm4") and not text.experts else 2
    yield "model.embed_tokens.weight", (text.vocab, text.hidden)
    if not text.tied_embeddings:
        yield "lm_head.weight", (text.vocab, text.hidden)
    yield "model.norm.weight", (text.hidden,)
    for layer in range(text.layers):
        at = f"model.layers.{layer}"
        for name, rows in (("q", query), ("k", key), ("v", key)):
            yield f"{at}.self_attn.{name}_proj.weight", (rows, text.hidden)
            if bias:
                yield f"{at}.self_attn.{name}_proj.bias", (rows,)
        yield f"{at}.self_attn.o_proj.weight", (text.hidden, query)
        yield f"{at}.norms.weight", (norms * text.hidden,)
        if text.experts and layer >= dense_layers:
            yield f"{at}.mlp.gate.weight", (text.experts, text.hidden)
            width = text.experts * text.expert_intermediate
            shared = shared_experts * text.expert_intermediate
            yield f"{at}.mlp.experts.weight", (3 * (width + shared), text.hidden)
        else:
            yield f"{at}.mlp.gate_up_proj.weight", (2 * text.intermediate, text.hidden)
            yield f"{at}.mlp.down_proj.weight", (text.hidden, text.intermediate)


def _tower_shapes(config: Config, vision: VisionFacts, out: int) -> Iterator[tuple[str, Shape]]:
    hidden, at = vision.hidden, "visual"
    channels = _whole(config, "in_channels", default=3)
    frames = _whole(config, "temporal_patch_size", default=1)
    patch = vision.geometry.patch_px
    positions = (_whole(config, "image_size", default=336) // patch) ** 2
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
    merge = vision.geometry.merge
    if str(config.get("model_type", "")).startswith("glm"):
        merger = _whole(config, "intermediate_size", default=4 * out)
        yield f"{at}.downsample.weight", (out, hidden, merge, merge)
        yield f"{at}.downsample.bias", (out,)
        yield f"{at}.merger.proj.weight", (out, out)
        yield f"{at}.merger.norm.weight", (2 * out,)
        yield f"{at}.merger.gate_up.weight", (2 * merger, out)
        yield f"{at}.merger.down.weight", (out, merger)
    else:
        wide = hidden * merge**2
        yield f"{at}.merger.first.weight", (wide, wide)
        yield f"{at}.merger.second.weight", (out, wide)


def _audio_shapes(config: Config, out: int) -> Iterator[tuple[str, Shape]]:
    hidden = _whole(config, "hidden_size", default=1280)
    inner = _whole(config, "intermediate_size", default=4 * hidden)
    for layer in range(_whole(config, "num_hidden_layers", default=32, most=MOST_LAYERS)):
        yield f"audio_tower.layers.{layer}.attn.weight", (4 * hidden, hidden)
        yield f"audio_tower.layers.{layer}.mlp.weight", (2 * inner, hidden)
    yield "audio_tower.projector.weight", (2 * out, inner)
