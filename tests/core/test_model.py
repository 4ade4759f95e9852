"""What a picture costs: the counts of the model's own image processor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.model import VisionGeometry

# width, height, tokens at 11.76M (the processor's default), 5M, 2.5M and 1M of `max_pixels`, which the
# processor compares with two frames. Computed with transformers' smart_resize for Glm4v.
COUNTS = [
    (1080, 1920, 2691, 2691, 1537, 594),
    (1080, 2340, 3276, 3154, 1566, 629),
    (1080, 2400, 3354, 3108, 1534, 592),
    (1200, 2670, 4085, 3108, 1534, 592),
    (1290, 2796, 4600, 3154, 1566, 629),
    (1440, 3200, 5814, 3108, 1534, 592),
]
BOUNDS = (11_760_000, 5_000_000, 2_500_000, 1_000_000)


@pytest.mark.parametrize(
    ("width", "height", "bound", "tokens"),
    [(w, h, bound, count) for w, h, *counts in COUNTS for bound, count in zip(BOUNDS, counts, strict=True)],
)
def test_the_count_is_the_processors(width: int, height: int, bound: int, tokens: int) -> None:
    assert VisionGeometry(max_pixels=bound // 2).tokens(width, height) == tokens


def test_the_default_is_that_of_the_checkpoint() -> None:
    assert VisionGeometry().tokens(1080, 2400) == 3354


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_no_picture_is_free_and_none_is_beyond_the_bound(width: int, height: int) -> None:
    geometry = VisionGeometry()
    tokens = geometry.tokens(width, height)
    cell = geometry.patch_px * geometry.merge
    longest = max(width, height) // cell + 1  # a strip one cell wide cannot be made narrower
    assert 1 <= tokens <= max(geometry.max_pixels // cell**2, longest)
