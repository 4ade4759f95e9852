"""Screenshots that were never sent before."""

import io

import pytest

from autoglm_serve.bench.picture import data_url, jpeg, page


@pytest.mark.parametrize("size", [(28, 28), (1080, 2400), (7, 2)])
def test_every_seed_gives_another_whole_picture(size: tuple[int, int]) -> None:
    from PIL import Image

    screen = page(*size, seed=1)
    pictures = [screen.png(seed) for seed in range(3)]
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    assert {image.size for image in opened} == {size}
    assert len({image.tobytes() for image in opened}) == 3


def test_a_screen_is_as_large_as_a_phones() -> None:
    assert 400_000 < len(page(1080, 2400, seed=2).png(0)) < 2_000_000


def test_it_may_be_a_jpeg() -> None:
    url = data_url(jpeg(page(60, 40, seed=3).png(1)), "jpeg")
    assert url.startswith("data:image/jpeg;base64,/9j/")
