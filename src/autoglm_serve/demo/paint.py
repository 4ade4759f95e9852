"""A screen as a picture.

Owns fonts, palettes and every pixel; needs Pillow and nothing else. The same code draws what is trained on
and what is evaluated. The fonts are cut to the world's characters and lie in this package; training adds
more of its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from .screens import WIDTH, Box, Element, Screen, Text, ems

Rgb: TypeAlias = tuple[int, int, int]

FONTS = tuple(sorted((Path(__file__).parent / "fonts").glob("*.[ot]tf")))
BUTTON_COLOURS: tuple[Rgb, ...] = (
    (222, 53, 53), (40, 160, 72), (40, 110, 230), (245, 140, 20), (140, 60, 190), (130, 130, 135),
)  # fmt: skip
"""In the order of words.COLOURS."""
ICON_COLOURS: tuple[Rgb, ...] = (
    (229, 73, 73), (52, 168, 83), (48, 119, 232), (246, 156, 34), (150, 76, 199), (26, 166, 168),
    (90, 96, 110), (214, 84, 150),
)  # fmt: skip
WALLPAPERS: tuple[Rgb, ...] = (
    (235, 240, 250), (215, 230, 240), (240, 232, 220), (225, 238, 225), (250, 250, 250), (232, 226, 242),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Palette:
    page: Rgb
    card: Rgb
    line: Rgb
    ink: Rgb
    faint: Rgb
    accent: Rgb


def paint(screen: Screen, *, width_px: int | None = None, fonts: Sequence[Path] = FONTS) -> Image.Image:
    """Draw at `width_px`, or at the screen's own resolution."""
    width = width_px or screen.size_px[0]
    scale = width / WIDTH
    image = Image.new("RGB", (width, round(screen.height * scale)))
    brush = _Brush(
        canvas=ImageDraw.Draw(image),
        scale=scale,
        palette=_palette(screen),
        regular=str(fonts[screen.font % len(fonts)]),
        bold=str(_bold_of(fonts, screen.font % len(fonts))),
    )
    _background(brush, screen)
    if screen.panel:
        _panel(brush, screen.panel, screen)
    _sign(brush, screen)
    for element in screen.elements:
        _PAINTERS[element.kind](brush, element)
    for text in screen.texts:
        brush.write(text, brush.palette.ink)
    return image


def _bold_of(fonts: Sequence[Path], index: int) -> Path:
    wanted = fonts[index].name.replace("regular", "bold")
    return next((font for font in fonts if font.name == wanted), fonts[index])


def _palette(screen: Screen) -> _Palette:
    rng = random.Random(screen.tint)
    accent = rng.choice(((30, 110, 240), (20, 160, 90), (235, 90, 40), (120, 80, 220)))
    if screen.dark:
        base = rng.randrange(8, 34)
        page = (base, base, base + rng.randrange(8))
        return _Palette(
            page=page,
            card=(base + 24,) * 3,
            line=(base + 44,) * 3,
            ink=(238, 238, 240),
            faint=(150, 150, 156),
            accent=accent,
        )
    page = rng.choice(WALLPAPERS)
    return _Palette(
        page=page,
        card=(255, 255, 255),
        line=(208, 210, 214),
        ink=(24, 26, 30),
        faint=(118, 120, 126),
        accent=accent,
    )


class _Brush:
    """Drawing in units."""

    def __init__(
        self, *, canvas: ImageDraw.ImageDraw, scale: float, palette: _Palette, regular: str, bold: str
    ) -> None:
        self.canvas = canvas
        self.scale = scale
        self.palette = palette
        self._regular = regular
        self._bold = bold

    def write(self, text: Text, colour: Rgb) -> None:
        font = _font(self._bold if text.bold else self._regular, max(4, round(text.size * self.scale)))
        self.canvas.text((text.x * self.scale, text.y * self.scale), text.words, colour, font, text.anchor)

    def corners(self, box: Box) -> tuple[float, float, float, float]:
        scale = self.scale
        return box.left * scale, box.top * scale, box.right * scale, box.bottom * scale

    def card(self, box: Box, radius: float, fill: Rgb | None, outline: Rgb | None = None) -> None:
        thick = max(1, round(3 * self.scale))
        self.canvas.rounded_rectangle(self.corners(box), radius * self.scale, fill, outline, thick)

    def disc(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        self.canvas.ellipse(self.corners(_around(x, y, radius)), fill)

    def line(self, points: Sequence[tuple[float, float]], colour: Rgb, width: float) -> None:
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.canvas.line(scaled, colour, max(1, round(width * self.scale)), "curve")

    def polygon(self, points: Sequence[tuple[float, float]], fill: Rgb) -> None:
        self.canvas.polygon([(x * self.scale, y * self.scale) for x, y in points], fill)


@lru_cache(maxsize=512)
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


def _around(x: float, y: float, radius: float) -> Box:
    return Box(left=x - radius, top=y - radius, right=x + radius, bottom=y + radius)


def _background(brush: _Brush, screen: Screen) -> None:
    palette = brush.palette
    page = _dim(palette.page) if screen.panel else palette.page
    brush.canvas.rectangle(brush.corners(Box(left=0, top=0, right=WIDTH, bottom=screen.height + 10)), page)
    _status_bar(brush, screen)
    if screen.back_arrow:
        y = screen.texts[0].y
        brush.line(((92, y - 34), (60, y), (92, y + 34)), palette.ink, 9)
    bar = Box(left=390, top=screen.height - 24, right=690, bottom=screen.height - 14)
    brush.card(bar, 5, palette.faint)


def _dim(colour: Rgb) -> Rgb:
    red, green, blue = (value * 45 // 100 for value in colour)
    return red, green, blue


def _status_bar(brush: _Brush, screen: Screen) -> None:
    ink = brush.palette.ink if not screen.panel else (235, 235, 235)
    brush.write(Text(words=screen.clock, x=50, y=58, size=50, anchor="lm"), ink)
    box = Box(left=950, top=40, right=1025, bottom=76)
    brush.card(box, 8, None, ink)
    charge = 956 + 63 * screen.battery / 100
    brush.canvas.rectangle(brush.corners(Box(left=956, top=46, right=charge, bottom=70)), ink)
    for index in range(4):
        x = 840 + index * 20
        brush.canvas.rectangle(brush.corners(Box(left=x, top=66 - index * 8, right=x + 12, bottom=76)), ink)


def _panel(brush: _Brush, panel: Box, screen: Screen) -> None:
    brush.card(panel, 48, (52, 52, 56) if screen.dark else (255, 255, 255))


def _app(brush: _Brush, element: Element) -> None:
    box = element.box
    side = box.right - box.left
    icon = Box(left=box.left, top=box.top, right=box.right, bottom=box.top + side)
    brush.card(icon, side * 0.24, ICON_COLOURS[element.colour or 0])
    _glyph(brush, element.glyph, *icon.centre, side * 0.3)
    brush.write(element.text, brush.palette.ink)


def _glyph(brush: _Brush, glyph: str, x: float, y: float, r: float, ink: Rgb = (255, 255, 255)) -> None:
    match glyph:
        case "disc":
            brush.disc(x, y, r, ink)
        case "ring":
            brush.canvas.ellipse(
                brush.corners(_around(x, y, r)), None, ink, max(1, round(r * 0.3 * brush.scale))
            )
        case "bars":
            for index in (-1, 0, 1):
                brush.line(((x - r, y + index * r * 0.7), (x + r, y + index * r * 0.7)), ink, r * 0.3)
        case "triangle":
            brush.polygon(((x - r * 0.7, y - r), (x + r, y), (x - r * 0.7, y + r)), ink)
        case "cross":
            brush.line(((x - r, y), (x + r, y)), ink, r * 0.35)
            brush.line(((x, y - r), (x, y + r)), ink, r * 0.35)
        case "square":
            brush.card(_around(x, y, r * 0.85), r * 0.2, ink)
        case _:
            brush.write(Text(words=glyph, x=x, y=y, size=r * 1.7), ink)


def _row(brush: _Brush, element: Element) -> None:
    box, palette = element.box, brush.palette
    if (element.glyph and element.text.anchor == "mm") or element.text.x > 200:
        brush.card(box, 28, palette.card)
        picture_x = box.left + 120 if element.text.anchor == "lm" else box.centre[0]
        picture_y = box.centre[1] if element.text.anchor == "lm" else (box.top + element.text.y - 40) / 2
        _glyph(brush, element.glyph, picture_x, picture_y, 62, ICON_COLOURS[element.colour or 0])
        brush.write(element.text, palette.ink)
        return
    _line_of_list(brush, element)
    x, y = box.right - 60, box.centre[1]
    brush.line(((x - 14, y - 24), (x + 8, y), (x - 14, y + 24)), palette.faint, 6)


def _line_of_list(brush: _Brush, element: Element) -> None:
    box, palette = element.box, brush.palette
    brush.canvas.rectangle(brush.corners(box), palette.card)
    brush.line(((box.left, box.bottom), (box.right, box.bottom)), palette.line, 2)
    if element.glyph:
        _glyph(brush, "disc", 92, box.centre[1], 32, ICON_COLOURS[element.colour or 0])
    brush.write(element.text, palette.ink)


def _switch(brush: _Brush, element: Element) -> None:
    _line_of_list(brush, element)
    x, y = element.box.right - 100, element.box.centre[1]
    track = Box(left=x - 56, top=y - 32, right=x + 56, bottom=y + 32)
    brush.card(track, 32, brush.palette.accent if element.on else brush.palette.line)
    brush.disc(x + (24 if element.on else -24), y, 25, (255, 255, 255))


def _button(brush: _Brush, element: Element) -> None:
    box = element.box
    brush.card(box, (box.bottom - box.top) / 2.6, BUTTON_COLOURS[element.colour or 0])
    brush.write(element.text, (255, 255, 255))


def _tab(brush: _Brush, element: Element) -> None:
    colour = brush.palette.accent if element.on else brush.palette.faint
    x, y = element.box.centre[0], element.box.top + 42
    if element.on:
        brush.disc(x, y, 30, colour)
    else:
        brush.canvas.ellipse(brush.corners(_around(x, y, 28)), None, colour, max(1, round(7 * brush.scale)))
    brush.write(element.text, colour)


def _field(brush: _Brush, element: Element) -> None:
    palette, box = brush.palette, element.box
    brush.card(box, 40, palette.card, palette.line)
    if element.on:
        brush.card(box, 40, palette.card, palette.accent)
        inner = Box(left=box.left + 4, top=box.top + 4, right=box.right - 4, bottom=box.bottom - 4)
        brush.card(inner, 38, palette.card, palette.accent)
        x, y = box.right - 50, box.centre[1]
        brush.line(((x, y - 34), (x, y + 34)), palette.accent, 9)
    brush.write(element.text, palette.faint)
    if element.value:
        size = min(44.0, 0.55 * (box.right - box.left) / ems(element.value))
        value = Text(words=element.value, x=box.right - 40, y=box.centre[1], size=size, anchor="rm")
        brush.write(value, palette.ink)


def _sign(brush: _Brush, screen: Screen) -> None:
    x, y = WIDTH / 2, screen.height * 0.42
    match screen.sign:
        case "done":
            brush.disc(x, y, 120, (40, 170, 80))
            brush.line(((x - 55, y), (x - 12, y + 45), (x + 62, y - 45)), (255, 255, 255), 22)
        case "loading":
            ring = brush.corners(_around(x, y, 95))
            start = screen.tint % 360
            brush.canvas.arc(ring, start, start + 270, brush.palette.accent, max(1, round(18 * brush.scale)))
        case "lock":
            ring = brush.corners(_around(x, y - 70, 62))
            brush.canvas.ellipse(ring, None, brush.palette.ink, max(1, round(22 * brush.scale)))
            body = Box(left=x - 95, top=y - 60, right=x + 95, bottom=y + 95)
            brush.card(body, 24, brush.palette.accent)
        case _:
            pass


_PAINTERS = {"app": _app, "row": _row, "switch": _switch, "button": _button, "tab": _tab, "field": _field}
