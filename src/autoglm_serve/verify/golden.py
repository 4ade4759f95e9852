"""Screens of a phone with one thing to tap on each, and where it is.

The pictures lie beside this file, so that asking needs no drawing. They are of the world that the demo model
knows, plain enough for any model that has learnt phones.

    python -m autoglm_serve.verify.golden    draws them again (needs Pillow)
"""

import base64
import json
import random
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "screens"
_LIST = _FOLDER / "screens.json"
_COUNT = 6
_WIDTHS_PX = (720, 1080)
_MOST_BYTES = 24_000
_CENTRE = range(380, 620)
"""Thousandths in which a thing is found wherever the picture was turned to."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenScreen:
    """A screenshot, what is asked for, and the right element: left, top, right, bottom in thousandths."""

    file: str
    task: str
    width_px: int
    height_px: int
    target: Box

    @property
    def url(self) -> str:
        return "data:image/png;base64," + base64.b64encode((_FOLDER / self.file).read_bytes()).decode()

    def content(self) -> list[dict[str, object]]:
        """The turn of a phone agent that shows it."""
        picture: dict[str, object] = {"type": "image_url", "image_url": {"url": self.url}}
        return [picture, {"type": "text", "text": self.task}]

    def is_hit(self, x: float, y: float) -> bool:
        left, top, right, bottom = self.target
        return left <= x <= right and top <= y <= bottom


@cache
def golden_screens() -> tuple[GoldenScreen, ...]:
    listed = json.loads(_LIST.read_text(encoding="utf-8"))
    return tuple(GoldenScreen(**{**one, "target": tuple(one["target"])}) for one in listed)


def draw() -> None:
    """Draw the screens again. The same every time."""
    from PIL import Image

    from autoglm_serve.demo.paint import paint
    from autoglm_serve.demo.screens import imagine
    from autoglm_serve.demo.tasks import ask

    rng = random.Random("golden screens")
    found: list[GoldenScreen] = []
    while len(found) < _COUNT:
        screen = imagine(rng)
        case = ask("tap", screen, rng)
        wanted = ("zh", "en")[len(found) % 2]
        if screen.language != wanted or case.target is None or not _tells_turns(case.target):
            continue
        picture = paint(screen)
        if picture.size[0] not in _WIDTHS_PX or any(case.instruction == one.task for one in found):
            continue
        name = f"{len(found)}.png"
        picture.quantize(48, dither=Image.Dither.NONE).save(_FOLDER / name, "PNG", optimize=True)
        if (_FOLDER / name).stat().st_size <= _MOST_BYTES:
            width, height = picture.size
            found.append(GoldenScreen(
                file=name, task=case.instruction, width_px=width, height_px=height, target=case.target
            ))  # fmt: skip
    text = json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=1)
    _LIST.write_text(text + "\n", encoding="utf-8")


def _tells_turns(target: Box) -> bool:
    """Whether the element is elsewhere once the picture is turned, mirrored or its sides are exchanged."""
    left, top, right, bottom = target
    x, y = (left + right) // 2, (top + bottom) // 2
    return x not in _CENTRE and y not in _CENTRE and abs(x - y) > 120 and abs(x + y - 999) > 120


if __name__ == "__main__":
    draw()
