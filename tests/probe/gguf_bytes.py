"""Writes GGUF headers, right and wrong, for tests of the reader."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

F32 = 0
Q4_K = 12
ALIGNMENT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    name: str
    shape: tuple[int, ...] = (32,)
    kind: int = F32
    offset: int = 0


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: object) -> bytes:
    return text(key) + typed(value)


def typed(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(str(item)) for item in value)
        case [*_]:
            return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
    raise TypeError(value)


def described(tensor: Tensor) -> bytes:
    shape = struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
    head = text(tensor.name) + struct.pack("<I", len(tensor.shape)) + shape
    return head + struct.pack("<IQ", tensor.kind, tensor.offset)


def header(
    pairs: Mapping[str, object], tensors: Sequence[Tensor] = (), *, magic: bytes = b"GGUF", version: int = 3
) -> bytes:
    """The file up to where the tensors' data begins."""
    body = magic + struct.pack("<IQQ", version, len(tensors), len(pairs))
    body += b"".join(pair(key, value) for key, value in pairs.items())
    body += b"".join(described(tensor) for tensor in tensors)
    return body + b"\0" * (-len(body) % ALIGNMENT)


TEXT_MODEL: Mapping[str, object] = {
    "general.architecture": "glm4",
    "general.name": "A Phone",
    "general.file_type": 15,
    "glm4.context_length": 65_536,
    "glm4.block_count": 40,
    "glm4.embedding_length": 4096,
    "glm4.attention.head_count": 32,
    "glm4.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "tokenizer.chat_template": "{{ messages }}",
}
TOWER: Mapping[str, object] = {
    "general.architecture": "clip",
    "clip.has_vision_encoder": True,
    "clip.projector_type": "glm4v",
    "clip.vision.patch_size": 14,
    "clip.vision.image_size": 336,
}


def model_bytes(pairs: Mapping[str, object] = TEXT_MODEL) -> bytes:
    """A whole file with one small tensor."""
    return header(pairs, [Tensor(name="w", shape=(4, 8))]) + b"\0" * 128
