"""A model: where its files are, what it can take, and what one picture costs it."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path


class Capability(StrEnum):
    """What a model can do; the gateway refuses a request that no replica could serve."""

    CHAT = "chat"
    VISION = "vision"
    HEARING = "hearing"  # takes audio in a chat by itself
    TRANSCRIPTION = "transcription"
    EMBEDDING = "embedding"


class Feature(StrEnum):
    """What a request may ask for, or hold, and an engine may not do, or pass over without a word."""

    OTHER_ROLES = "other_roles"  # messages of roles that no API and no common template has
    BUILT_IN_TOOLS = "built_in_tools"  # web search and the like, done by who answers
    SPOKEN_ANSWER = "spoken_answer"
    JSON_RESPONSE = "json_response"  # `text.format` of /v1/responses
    ECHO = "echo"  # of /v1/completions, as the following
    PLAIN_LOGPROBS = "plain_logprobs"
    BEST_OF = "best_of"
    SUFFIX = "suffix"
    WEBP = "webp"  # pictures in WebP
    EXIF_TURNS = "exif_turns"  # pictures that their Exif data turns or mirrors


MADE_READABLE = frozenset({Feature.WEBP, Feature.EXIF_TURNS})
"""Those that the gateway does itself where an engine does not, instead of refusing them."""


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
    revision: str | None = None
    """The commit, tag or branch of a repository that the engine downloads; None: the newest."""


class ImageRule(StrEnum):
    """How a family turns an image into tokens."""

    DYNAMIC = "dynamic"  # patches of the image at its own size: GLM-4.1V, Qwen-VL
    FIXED = "fixed"  # as many for every image: Gemma 3, LLaVA 1.5
    TILES = "tiles"  # the grid of tiles nearest to its shape, and a thumbnail: InternVL
    GRIDS = "grids"  # the best of a list of grids, its padding taken off, and a thumbnail: LLaVA-NeXT


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
    rule: ImageRule = ImageRule.DYNAMIC
    fixed_tokens: int = 0
    """Of any image (fixed)."""
    tile_px: int = 0
    """Side of one tile, which is square (tiles and grids)."""
    most_tiles: int = 0
    """Without the thumbnail (tiles)."""
    grids: tuple[tuple[int, int], ...] = ()
    """(columns, rows) of tiles that an image may be laid out in (grids)."""

    def tokens(self, width_px: int, height_px: int) -> int:
        """Tokens of one image, as the family's processor counts them.

        1080x2400 gives 3,354 by the default rule (1092x2408 after rounding).
        """
        match self.rule:
            case ImageRule.FIXED:
                return max(1, self.fixed_tokens)
            case ImageRule.TILES:
                return self._tiled(width_px, height_px)
            case ImageRule.GRIDS:
                return self._in_a_grid(width_px, height_px)
            case ImageRule.DYNAMIC:
                return self._dynamic(width_px, height_px)

    @property
    def most_tokens(self) -> int:
        """Of one image of whatever size and shape."""
        match self.rule:
            case ImageRule.FIXED:
                return max(1, self.fixed_tokens)
            case ImageRule.TILES:
                return (self.most_tiles + (self.most_tiles > 1)) * self._tile_tokens
            case ImageRule.GRIDS:
                shapes = ((columns * self.tile_px, rows * self.tile_px) for columns, rows in self.grids)
                return max((self.tokens(*shape) for shape in shapes), default=self._tile_tokens)
            case ImageRule.DYNAMIC:
                return max(1, self.max_pixels // (self.patch_px * self.merge) ** 2)

    @property
    def _tile_tokens(self) -> int:
        return max(1, self.tile_px // (self.patch_px * self.merge)) ** 2

    def _dynamic(self, width_px: int, height_px: int) -> int:
        """Source: smart_resize of transformers' Glm4vImageProcessor and Qwen2VLImageProcessor.

        Within one row or column of the processor where the area bound bites.
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

    def _tiled(self, width_px: int, height_px: int) -> int:
        """Source: dynamic_preprocess of InternVL: the nearest aspect ratio, on a tie the larger grid where
        the image has the pixels for more than half of it."""
        width, height = max(1, width_px), max(1, height_px)
        shape, area, tile_area = width / height, width * height, self.tile_px**2
        best, best_off = (1, 1), float("inf")
        for columns, rows in _grids_within(self.most_tiles):
            off = abs(shape - columns / rows)
            if off < best_off or (off == best_off and area > 0.5 * tile_area * columns * rows):
                best, best_off = (columns, rows), off
        tiles = best[0] * best[1]
        return (tiles + (tiles > 1)) * self._tile_tokens

    def _in_a_grid(self, width_px: int, height_px: int) -> int:
        """Source: select_best_resolution and the unpadding of transformers' LlavaNext, whose rows of tiles
        end in a token each."""
        width, height = max(1, width_px), max(1, height_px)
        side = max(1, self.tile_px // (self.patch_px * self.merge))
        columns, rows = max(self.grids or ((1, 1),), key=lambda grid: self._kept(grid, width, height))
        wide, high = columns * side, rows * side
        if width / height > wide / high:
            high -= 2 * ((high - height * wide // width) // 2)
        else:
            wide -= 2 * ((wide - width * high // height) // 2)
        return side * side + max(1, high) * max(1, wide) + max(1, high)

    def _kept(self, grid: tuple[int, int], width: int, height: int) -> tuple[int, int]:
        """(pixels of the image that survive in this grid, pixels of it that stay empty, negative)."""
        wide, high = grid[0] * self.tile_px, grid[1] * self.tile_px
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - wide * high


@cache
def _grids_within(tiles: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) of at most so many tiles, fewest first."""
    sides = range(1, tiles + 1)
    grids = {(a, b) for a in sides for b in sides if a * b <= tiles}
    return tuple(sorted(grids, key=lambda grid: (grid[0] * grid[1], grid)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioSpan:
    """How much sound a speech model takes in one pass, in seconds: what it was trained on."""

    shortest_s: float
    """Shorter audio is refused."""
    longest_s: float
    """Longer audio is cut where it is quiet."""
