"""Names, shapes and dtypes of a checkpoint's tensors, summed into groups that are split across GPUs alike.

Two sources, one path: safetensors headers where they can be read, and a list derived from the config where
they cannot (a profile that ships with this package, a folder without its weights). Weights are never read.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.facts import ModelPart, Shard, TensorGroup

DTYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1, "F4": 0.5,
}  # fmt: skip

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as a header describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return int(self.elements * DTYPE_BYTES.get(self.dtype, 2))


def read_headers(folder: Path) -> tuple[Tensor, ...]:
    """Every tensor of the safetensors files in `folder`; empty where there is none.

    Raises ModelError where a file is cut short or is no safetensors file.
    """
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        wanted = set(_index_files(index))
        missing = sorted(name for name in wanted if not (folder / name).is_file())
        if missing and len(missing) < len(wanted):
            raise ModelError(
                f"{folder} is incomplete: {missing[0]} is not there.",
                why=f"its index names {len(wanted)} files, {len(missing)} of them are missing",
                next_step="download the rest of the model, then try again",
            )
        files = [path for path in files if path.name in wanted]
    return tuple(tensor for path in files for tensor in _file_tensors(path))


def _index_files(index: Path) -> Iterable[str]:
    try:
        return [str(name) for name in json.loads(index.read_text())["weight_map"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{index} is no safetensors index.",
            why=str(error),
            next_step="download the file again",
        ) from error


def _file_tensors(path: Path) -> Iterator[Tensor]:
    try:
        length, header = read_header(path)
        _require_length(path, length, header)
        for name, entry in header.items():
            if name != "__metadata__":
                yield Tensor(name=name, shape=_shape(entry["shape"]), dtype=str(entry["dtype"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors.",
            why=str(error),
            next_step="download the file again; a download that broke off leaves such a file",
        ) from error


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length and content of a safetensors header. Raises OSError, ValueError or RecursionError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it ends in the middle of its header")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return length, header


def _require_length(path: Path, length: int, header: dict[str, Any]) -> None:
    """Tensors end within the file, or a download broke off, or the header lies. Raises ValueError."""
    entries = (entry for name, entry in header.items() if name != "__metadata__")
    end = (
        8
        + length
        + max((int(entry["data_offsets"][1]) for entry in entries if "data_offsets" in entry), default=0)
    )
    size = path.stat().st_size
    if end > size:
        raise ValueError(f"its header points to byte {end:,} of {size:,}")


def _shape(sizes: list[int]) -> tuple[int, ...]:
    if not all(isinstance(size, int) and 0 <= size < 2**48 for size in sizes):
        raise ValueError(f"a tensor of shape {str(sizes)[:80]}")
    return tuple(sizes)


# --- what tensor parallelism does with a tensor, by its name ---------------------------------------------

_VISION = re.compile(r"(^|\.)(visual|vision_tower|vision_model|vision_encoder|vit|image_encoder)\.")
_VISION_BRIDGE = re.compile(r"(^|\.)(multi_modal_projector|mm_projector|mlp1|aligner|connector)\.")
_AUDIO = re.compile(r"(^|\.)(audio_tower|audio_encoder|audio_model|speech_encoder)\.")
_LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|output_layer)\.weight$|^output\.weight$")
_KV = re.compile(r"\.(k_proj|v_proj|key|value|wk|wv)\.")
_LATENT = re.compile(r"\.(q_a_proj|kv_a_proj_with_mqa|fused_qkv_a_proj)\.")
_ROUTER = re.compile(r"\.(mlp|block_sparse_moe|feed_forward)\.(gate|router)\.|\.shared_expert_gate\.")
_EXPERTS = re.compile(r"\.experts(\.|$)")
_FUSED_EXPERTS = re.compile(r"\.experts\.(gate_up_proj|down_proj|w1|w2|w3|w13)$")
_DRAFT = re.compile(r"^(model\.)?mtp\.")
_NOT_SPLIT_IN_TOWER = re.compile(
    r"(patch_embed|position_embedding|pos_embed|downsample|class_embedding|cls_token)"
)
_PACKED = ("qweight", "weight_packed", "_blocks", "qweight_packed")
_SCALES = (
    "scales", "qzeros", "g_idx", "weight_scale", "weight_scale_inv", "weight_scale_2", "weight_zero_point",
    "weight_shape", "weight_g_idx", "input_scale", "_scale_inv", "_scale", "absmax", "quant_map",
    "nested_absmax", "nested_quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4", "SCB",
)  # fmt: skip
WORD_BITS = {"I32": 32, "U32": 32, "I64": 64, "U8": 8, "I8": 8, "I16": 16}
SCALES = "SCALES"


def is_text(name: str) -> bool:
    """A tensor of the decoder, not of a tower."""
    return not (_AUDIO.search(name) or _VISION.search(name) or _VISION_BRIDGE.search(name))


def is_draft(name: str, layers: int) -> bool:
    """A layer that predicts further tokens, which engines leave out unless they are asked for it."""
    number = _LAYER.search(name) if is_text(name) else None
    return bool(_DRAFT.search(name)) or bool(number and number[2] != "blocks" and int(number[3]) >= layers)


def groups(tensors: Iterable[Tensor], *, tower_split: bool, bits: int = 4) -> tuple[TensorGroup, ...]:
    """The tensors, summed by part, split and dtype. `tower_split`: the engine splits the vision tower.

    `bits` are those of a weight that is packed with others into one word.
    """
    sums: dict[tuple[ModelPart, Shard, str, bool, bool], list[int]] = {}
    for tensor in tensors:
        part = _part(tensor.name)
        shard = _shard(tensor, part, tower_split)
        dtype, elements = _held(tensor, bits)
        linear = (
            len(tensor.shape) >= 2
            and dtype != SCALES
            and _is_weight(tensor.name)
            and part in (ModelPart.LAYERS, ModelPart.VISION)
            and shard is not Shard.COPY
        )
        routed = part is ModelPart.LAYERS and bool(_EXPERTS.search(tensor.name))
        entry = sums.setdefault((part, shard, dtype, linear, routed), [0, 0])
        entry[0] += elements
        entry[1] += tensor.bytes
    return tuple(
        TensorGroup(
            part=part, shard=shard, dtype=dtype, linear=linear, routed=routed, elements=elements, bytes=size
        )
        for (part, shard, dtype, linear, routed), (elements, size) in sorted(
            sums.items(), key=lambda item: str(item[0])
        )
    )


def _is_weight(name: str) -> bool:
    return name.endswith(("weight", *_PACKED)) or bool(_FUSED_EXPERTS.search(name))


def is_packed(tensor: Tensor) -> bool:
    """Several weights lie in each of its numbers."""
    whole_words = tensor.dtype in WORD_BITS and tensor.dtype != "I8"
    return whole_words and (tensor.name.endswith(_PACKED) or tensor.name.endswith(".weight"))


def _held(tensor: Tensor, bits: int) -> tuple[str, int]:
    """(dtype as a `TensorGroup` has it, weights that the tensor holds)."""
    if tensor.name.endswith(_SCALES) and not _is_weight(tensor.name):
        return SCALES, 0
    if is_packed(tensor):
        held = 4 if tensor.name.endswith("_blocks") else bits
        return f"INT{held}", tensor.elements * WORD_BITS[tensor.dtype] // held
    return ("INT8" if tensor.dtype == "I8" else tensor.dtype), tensor.elements


def _part(name: str) -> ModelPart:
    if _AUDIO.search(name):
        return ModelPart.AUDIO
    if _VISION.search(name) or _VISION_BRIDGE.search(name):
        return ModelPart.VISION
    if _EMBEDDING.search(name):
        return ModelPart.EMBEDDING
    if _HEAD.search(name):
        return ModelPart.HEAD
    return ModelPart.LAYERS  # the final norm too: it is as small as one layer's


def _shard(tensor: Tensor, part: ModelPart, tower_split: bool) -> Shard:
    name = tensor.name
    if part is ModelPart.AUDIO or len(tensor.shape) < 2:
        return Shard.COPY
    if part is ModelPart.VISION:
        return Shard.SPLIT if tower_split and not _NOT_SPLIT_IN_TOWER.search(name) else Shard.COPY
    if part in (ModelPart.EMBEDDING, ModelPart.HEAD):
        return Shard.VOCAB
    if _ROUTER.search(name) or _LATENT.search(name) or not _LAYER.search(name):
        return Shard.COPY
    return Shard.KV if _KV.search(name) else Shard.SPLIT
