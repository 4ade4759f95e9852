"""The vision tower and how its family turns an image into tokens, from the config and the preprocessor's.

Sources: the image processors of transformers and the get_num_image_tokens of vLLM's model files.
"""

from math import isqrt

from autoglm_serve.core.facts import VisionFacts
from autoglm_serve.core.model import ImageRule, VisionGeometry
from autoglm_serve.probe.config_values import MOST_LAYERS, Config, Meaningless, whole, within
from autoglm_serve.probe.families import Family

LONGEST_EDGE_PX = 16_384
"""A `longest_edge` up to this is one; a larger one is an area, as GLM-4.1V and Qwen write it."""
MOST_PIXELS = 2**40
TILE_PX = 448
MOST_TILES = 12


def vision_facts(config: Config, preprocessor: Config, rules: Family) -> VisionFacts | None:
    """None where the model does not see. Raises Meaningless."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or not (vision.get("hidden_size") or vision.get("embed_dim")):
        return None
    hidden = whole(vision, "embed_dim", "hidden_size", default=0)
    glm = rules.vision == "glm4v"
    depth = whole(vision, "depth", "num_hidden_layers", default=24, most=MOST_LAYERS)
    geometry = _geometry(config, vision, preprocessor, rules)
    windowed = vision.get("fullatt_block_indexes")
    return VisionFacts(
        depth=depth,
        hidden=hidden,
        heads=whole(vision, "num_heads", "num_attention_heads", default=16),
        intermediate=_intermediate(vision, hidden, glm),
        gated=glm or "2_5" in str(config.get("model_type")),
        geometry=geometry,
        full_attention_layers=len(windowed) if isinstance(windowed, list) else depth,
        tile_patches=(geometry.tile_px // geometry.patch_px) ** 2,
        longest_tokens=geometry.most_tokens,
        max_pixels_flag=rules.vision in ("glm4v", "qwen"),
        encoder_data_parallel=rules.encoder_data_parallel,
    )


def _intermediate(vision: Config, hidden: int, glm: bool) -> int:
    ratio = vision.get("mlp_ratio")
    if ratio is not None and (not isinstance(ratio, int | float) or not 0 < ratio <= 64):
        raise Meaningless(f"mlp_ratio is {str(ratio)[:40]!r}")
    usual = int(hidden * (ratio or 4))
    return whole(vision, "out_hidden_size" if glm else "intermediate_size", default=usual)


def _geometry(config: Config, vision: Config, preprocessor: Config, rules: Family) -> VisionGeometry:
    patch_px = whole(vision, "patch_size", default=14)
    match rules.vision:
        case "internvl":
            return VisionGeometry(
                rule=ImageRule.TILES,
                patch_px=patch_px,
                merge=2,
                tile_px=whole(config, "force_image_size", default=0)
                or whole(vision, "image_size", default=TILE_PX),
                most_tiles=whole(config, "max_dynamic_patch", default=MOST_TILES, most=256),
            )
        case "gemma3":
            tokens = whole(config, "mm_tokens_per_image", default=256)
            side = max(1, whole(vision, "image_size", default=896) // patch_px)
            return _fixed(patch_px, tokens, max(1, side // max(1, isqrt(tokens))))
        case "llava":
            side = max(1, whole(vision, "image_size", default=336) // patch_px)
            return _fixed(patch_px, side * side, 1)
        case "llava_next":
            tile_px = max(patch_px, whole(vision, "image_size", default=336))
            grids = _grids(config.get("image_grid_pinpoints"), tile_px)
            return VisionGeometry(
                rule=ImageRule.GRIDS, patch_px=patch_px, merge=1, tile_px=tile_px, grids=grids
            )
        case _:
            return _dynamic(vision, preprocessor, rules, patch_px)


def _fixed(patch_px: int, tokens: int, merge: int) -> VisionGeometry:
    return VisionGeometry(rule=ImageRule.FIXED, patch_px=patch_px, merge=merge, fixed_tokens=tokens)


def _grids(pinpoints: object, tile_px: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) of tiles; the config has (height, width) in pixels."""
    if not isinstance(pinpoints, list) or len(pinpoints) > 1024:
        return ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    found = []
    for pair in pinpoints:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(side, int) for side in pair):
            raise Meaningless(f"image_grid_pinpoints holds {str(pair)[:40]!r}")
        height, width = pair
        if not (0 < height <= 2**20 and 0 < width <= 2**20):
            raise Meaningless(f"image_grid_pinpoints holds {pair}")
        found.append((max(1, width // tile_px), max(1, height // tile_px)))
    return tuple(found)


def _dynamic(vision: Config, preprocessor: Config, rules: Family, patch_px: int) -> VisionGeometry:
    merge = whole(vision, "spatial_merge_size", default=0) or whole(preprocessor, "merge_size", default=1)
    size = within(preprocessor, "size")
    cell = patch_px * merge
    edge = whole(size, "longest_edge", default=0)
    power = 2 if edge <= LONGEST_EDGE_PX else 1
    longest = edge**power or whole(preprocessor, "max_pixels", default=min(MOST_PIXELS, 16_384 * cell**2))
    shortest = whole(size, "shortest_edge", default=0) ** power or whole(
        preprocessor, "min_pixels", default=4 * cell**2
    )
    return VisionGeometry(
        patch_px=patch_px,
        merge=merge,
        min_pixels=shortest // rules.frames,
        max_pixels=longest // rules.frames,
    )
