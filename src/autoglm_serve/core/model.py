"""A model: where its files are, what it can take, and what one picture costs it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Capability(StrEnum):
    """What a model can do; the gateway refuses a request that no replica could serve."""

    CHAT = "chat"
    VISION = "vision"
    HEARING = "hearing"  # takes audio in a chat by itself
    TRANSCRIPTION = "transcription"
    EMBEDDING = "embedding"


class ModelFormat(StrEnum):
    GGUF = "gguf"
    HUGGING_FACE = "hugging-face"
    REMOTE = "remote"  # an address that is already serving; no files here


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model that is on this machine, checked as far as its headers go."""

    reference: str
    """What the person asked for: a path, a hub id, or the bundled demo's name."""
    format: ModelFormat
    path: Path | None = None
    """The GGUF file, or the folder with config.json and safetensors."""
    mmproj: Path | None = None
    """llama.cpp keeps the vision (or audio) tower in a second GGUF."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionGeometry:
    """How an image becomes tokens: patches of `patch_px`, merged `merge` by `merge`.

    The defaults are GLM-4.1V's (AutoGLM-Phone-9B). `max_pixels` bounds width x height after resizing,
    for one still frame; Hugging Face's `longest_edge` counts two frames and is twice that.
    """

    patch_px: int = 14
    merge: int = 2
    min_pixels: int = 6_272
    max_pixels: int = 4_816_896

    def tokens(self, width_px: int, height_px: int) -> int:
        """Tokens of one image. Source: smart_resize of transformers' Glm4vImageProcessor.

        1080x2400 gives 3,354 (1092x2408 after rounding); within one row or column of the processor
        where the area bound bites.
        """
        cell = self.patch_px * self.merge
        width, height = max(width_px, cell), max(height_px, cell)
        columns, rows = round(width / cell), round(height / cell)
        rounded_area = columns * rows * cell * cell
        if rounded_area > self.max_pixels:
            scale = (self.max_pixels / (width * height)) ** 0.5
            columns, rows = int(width * scale) // cell, int(height * scale) // cell
        elif rounded_area < self.min_pixels:
            scale = (self.min_pixels / (width * height)) ** 0.5
            columns, rows = -(-int(width * scale) // cell), -(-int(height * scale) // cell)
        return max(1, columns) * max(1, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioSpan:
    """How much sound a speech model takes in one pass, in seconds: what it was trained on."""

    shortest_s: float
    """Shorter audio is refused."""
    longest_s: float
    """Longer audio is cut where it is quiet."""
