"""Reads the header of a GGUF file: what the model is, and whether the file is whole.

Owns the format (versions 2 and 3, little-endian); knows nothing of engines. Nothing of the tensors' data is
read, and no count in the file is believed before the file's own size allows it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SHORT_ARRAY = 4096
"""Arrays of numbers up to this length are kept; longer ones (token scores) are skipped."""
MAX_KEY_BYTES = 65_535
MAX_DIMENSIONS = 4
MAX_HEADER_BYTES = 64 * 2**20
"""Names, words and merges of the largest vocabularies take a quarter of it. A sparse file is as long as it
says, and reading it to its end takes hours."""

_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = _SCALARS[4], _SCALARS[10]
_SMALLEST_PAIR_BYTES = 8 + 4 + 1
_SMALLEST_TENSOR_BYTES = 8 + 4 + 4 + 8

# Bytes of one block and the elements it holds, by ggml type; from ggml's type traits.
# fmt: off
_BLOCKS: dict[int, tuple[int, int]] = {
    0: (4, 1), 1: (2, 1), 30: (2, 1), 24: (1, 1), 25: (2, 1), 26: (4, 1), 27: (8, 1), 28: (8, 1),
    2: (18, 32), 3: (20, 32), 6: (22, 32), 7: (24, 32), 8: (34, 32), 9: (36, 32),
    10: (84, 256), 11: (110, 256), 12: (144, 256), 13: (176, 256), 14: (210, 256), 15: (292, 256),
    16: (66, 256), 17: (74, 256), 18: (98, 256), 19: (50, 256), 20: (18, 32), 21: (110, 256),
    22: (82, 256), 23: (136, 256), 29: (56, 256), 34: (54, 256), 35: (66, 256), 39: (17, 32),
    40: (36, 64), 41: (18, 128), 42: (18, 64),
}
# fmt: on

Scalar = int | float | bool
Value = Scalar | str | tuple[Scalar, ...] | None


class GgufError(ValueError):
    """The file is no GGUF, is cut short, or breaks the format; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufVision:
    """The vision tower of an mmproj file."""

    patch_px: int
    merge: int | None
    """None where the file leaves it to the projector."""
    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFacts:
    """What the header says. A shape that the file does not name is None."""

    architecture: str
    name: str | None
    context_length: int | None
    n_layers: int | None
    n_kv_heads: int | None
    head_dim: int | None
    embedding_length: int | None
    parameters: int
    tensor_bytes: int
    vocabulary: int | None
    vision: GgufVision | None = None

    @property
    def is_mmproj(self) -> bool:
        """A vision or audio tower: it completes a model and is none by itself."""
        return self.architecture == "clip"


def read_gguf(path: Path) -> GgufFacts:
    """The facts of one file; raises GgufError, or OSError where it cannot be read."""
    if path.exists() and not path.is_file():
        raise GgufError("it is no regular file")
    with path.open("rb") as stream:
        return parse_gguf(stream, path.stat().st_size)


def parse_gguf(stream: BinaryIO, size_bytes: int) -> GgufFacts:
    """As `read_gguf`, from an open file of that size."""
    cursor = _Cursor(stream, size_bytes)
    if (magic := cursor.take(4)) != MAGIC:
        raise GgufError(f"it begins with {magic!r}, not with {MAGIC!r}")
    version = cursor.number(_U32)
    if version not in VERSIONS:
        raise GgufError(f"GGUF version {version} is not among those known {VERSIONS}")
    n_tensors, n_pairs = cursor.number(_U64), cursor.number(_U64)
    cursor.expect(n_pairs, _SMALLEST_PAIR_BYTES)
    pairs = dict(_pair(cursor) for _ in range(n_pairs))
    cursor.expect(n_tensors, _SMALLEST_TENSOR_BYTES)
    parameters, tensor_bytes = _tensors(cursor, n_tensors, pairs)
    return _facts(pairs, parameters, tensor_bytes)


class _Cursor:
    """A place in the file that never moves past its end."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._left = size_bytes
        self.size_bytes = size_bytes

    @property
    def position(self) -> int:
        return self.size_bytes - self._left

    def expect(self, count: int, each_bytes: int) -> None:
        if count * each_bytes > self._left:
            raise GgufError(f"it ends after {self.size_bytes} bytes, in the middle of its header")
        if self.position + count * each_bytes > MAX_HEADER_BYTES:
            raise GgufError(f"its header claims more than {MAX_HEADER_BYTES} bytes")

    def take(self, count: int) -> bytes:
        self.expect(count, 1)
        data = self._stream.read(count)
        if len(data) != count:
            raise GgufError(f"only {self.position + len(data)} of {self.size_bytes} bytes could be read")
        self._left -= count
        return data

    def skip(self, count: int) -> None:
        self.expect(count, 1)
        self._stream.seek(count, 1)
        self._left -= count

    def number(self, kind: struct.Struct) -> int:
        value: int = kind.unpack(self.take(kind.size))[0]
        return value

    def text(self) -> str:
        return self.take(self.number(_U64)).decode("utf-8", "replace")


def _pair(cursor: _Cursor) -> tuple[str, Value]:
    length = cursor.number(_U64)
    if length > MAX_KEY_BYTES:
        raise GgufError(f"a key of {length} bytes at offset {cursor.position}")
    key = cursor.take(length).decode("utf-8", "replace")
    return key, _value(cursor, cursor.number(_U32))


def _value(cursor: _Cursor, kind: int) -> Value:
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor, cursor.number(_U32), cursor.number(_U64))
    if kind not in _SCALARS:
        raise GgufError(f"a value of unknown type {kind} at offset {cursor.position}")
    scalar = _SCALARS[kind]
    value: Scalar = scalar.unpack(cursor.take(scalar.size))[0]
    return value


def _array(cursor: _Cursor, kind: int, count: int) -> Value:
    """A short array of numbers as a tuple; of any other only the length, as an int."""
    if kind == _STRING:
        cursor.expect(count, 8)
        for _ in range(count):
            cursor.skip(cursor.number(_U64))
        return count
    if kind not in _SCALARS:
        raise GgufError(f"an array of unknown type {kind} at offset {cursor.position}")
    scalar = _SCALARS[kind]
    if count > SHORT_ARRAY:
        cursor.skip(count * scalar.size)
        return count
    return tuple(value for (value,) in scalar.iter_unpack(cursor.take(count * scalar.size)))


def _tensors(cursor: _Cursor, count: int, pairs: Mapping[str, Value]) -> tuple[int, int]:
    """Parameters and bytes of all tensors; raises where the file ends before one of them does."""
    parameters = total_bytes = last_end = 0
    for _ in range(count):
        cursor.skip(cursor.number(_U64))
        dimensions = cursor.number(_U32)
        if dimensions > MAX_DIMENSIONS:
            raise GgufError(f"a tensor of {dimensions} dimensions at offset {cursor.position}")
        elements = prod(cursor.number(_U64) for _ in range(dimensions))
        block_bytes, block_elements = _BLOCKS.get(cursor.number(_U32), (0, 1))
        tensor_bytes = elements // block_elements * block_bytes
        last_end = max(last_end, cursor.number(_U64) + tensor_bytes)
        parameters += elements
        total_bytes += tensor_bytes
    needed = _aligned(cursor.position, pairs) + last_end if count else cursor.position
    size = cursor.size_bytes
    if needed > size:
        raise GgufError(f"it is {size} bytes long and its tensors need {needed}: the file is cut short")
    return parameters, total_bytes


def _aligned(position: int, pairs: Mapping[str, Value]) -> int:
    alignment = _whole(pairs, "general.alignment") or 32
    return -(-position // alignment) * alignment


def _whole(pairs: Mapping[str, Value], *keys: str) -> int | None:
    """The first of these that is there and not negative; of an array (heads by layer) the largest."""
    for key in keys:
        match pairs.get(key):
            case bool():
                continue
            case int() as value if value >= 0:
                return value
            case tuple() as values if values and all(
                isinstance(value, int) and value >= 0 for value in values
            ):
                return int(max(values))
    return None


def _text(pairs: Mapping[str, Value], *keys: str) -> str | None:
    return next((value for key in keys if isinstance(value := pairs.get(key), str)), None)


def _facts(pairs: Mapping[str, Value], parameters: int, tensor_bytes: int) -> GgufFacts:
    architecture = _text(pairs, "general.architecture")
    if architecture is None:
        raise GgufError("its header names no general.architecture")
    heads = _whole(pairs, f"{architecture}.attention.head_count")
    embedding = _whole(pairs, f"{architecture}.embedding_length")
    per_head = embedding // heads if embedding and heads else None
    return GgufFacts(
        architecture=architecture,
        name=_text(pairs, "general.name"),
        context_length=_whole(pairs, f"{architecture}.context_length"),
        n_layers=_whole(pairs, f"{architecture}.block_count"),
        n_kv_heads=_whole(pairs, f"{architecture}.attention.head_count_kv") or heads,
        head_dim=_whole(pairs, f"{architecture}.attention.key_length") or per_head,
        embedding_length=embedding,
        parameters=parameters,
        tensor_bytes=tensor_bytes,
        vocabulary=_whole(pairs, "tokenizer.ggml.tokens"),
        vision=_vision(pairs) if architecture == "clip" else None,
    )


def _vision(pairs: Mapping[str, Value]) -> GgufVision | None:
    patch = _whole(pairs, "clip.vision.patch_size")
    if patch is None or pairs.get("clip.has_vision_encoder") is False:
        return None
    return GgufVision(
        patch_px=patch,
        merge=_whole(pairs, "clip.vision.spatial_merge_size"),
        min_pixels=_whole(pairs, "clip.vision.image_min_pixels"),
        max_pixels=_whole(pairs, "clip.vision.image_max_pixels"),
    )
