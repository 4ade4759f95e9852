"""Pictures for tests and benchmarks, as a chat carries them."""

import base64
import io

from PIL import Image


def png(width: int = 40, height: int = 30) -> str:
    """A black picture, as a data URL."""
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def image(url: object) -> dict[str, object]:
    """A content part that shows the picture at this address."""
    return {"type": "image_url", "image_url": {"url": url}}
