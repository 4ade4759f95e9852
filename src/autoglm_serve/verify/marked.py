"""A screenshot with the taps of two answers drawn on it. Needs Pillow."""

import base64
import binascii
import io
from pathlib import Path

from .comparison import Pair
from .screens import point_of

_COLOURS = ((0, 120, 255), (230, 40, 40))
_WIDTH_PX = 540


def can_draw() -> bool:
    try:
        import PIL  # noqa: F401
    except ImportError:
        return False
    return True


def draw(pair: Pair, file: Path) -> bool:
    """The first's tap in blue, the second's in red. False where there is nothing to draw."""
    from PIL import Image, ImageDraw

    url = pair.chat.picture_url
    if url is None:
        return False
    try:
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    except (OSError, binascii.Error, ValueError):
        return False
    image.thumbnail((_WIDTH_PX, 4 * _WIDTH_PX))
    canvas = ImageDraw.Draw(image)
    for reply, colour in zip((pair.first, pair.second), _COLOURS, strict=True):
        point = point_of(reply.text)
        if point is not None:
            x, y, r = point[0] * image.width / 1000, point[1] * image.height / 1000, image.width / 36
            canvas.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=5)
    image.save(file)
    return True
