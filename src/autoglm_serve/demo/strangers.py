"""Screens of other worlds: what a phone may show that the model has never learned.

Owns their drawing. None of them holds a word of the world. The last styles are held out: training draws the
others, the evaluation draws only these. Knows nothing of models.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from .paint import FONTS

HELD_OUT = 5
"""How many of the styles are held out: the last ones."""


class _Sheet:
    """Drawing in shares of the width."""

    def __init__(self, rng: random.Random, width: int, height: int) -> None:
        self.rng = rng
        self.dark = rng.random() < 0.4
        low, high = (0, 60) if self.dark else (190, 256)
        self.page = tuple(rng.randrange(low, high) for _ in range(3))
        self.image = Image.new("RGB", (width, height), self.page)
        self.pen = ImageDraw.Draw(self.image)
        self.width, self.height = width, height
        self.font = rng.choice((*map(str, FONTS), ""))

    def colour(self, low: int = 0, high: int = 256) -> tuple[int, int, int]:
        rng = self.rng
        return rng.randrange(low, high), rng.randrange(low, high), rng.randrange(low, high)

    def ink(self) -> tuple[int, int, int]:
        return self.colour(190, 256) if self.dark else self.colour(0, 70)

    def word(self) -> str:
        rng = self.rng
        if rng.random() < 0.2:
            return f"{rng.randrange(10000)}{rng.choice(('', '%', ' kB', '.5', ':30', '€'))}"
        made = "".join(
            rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiouy") for _ in range(rng.randrange(1, 5))
        )
        return made.capitalize() if rng.random() < 0.4 else made

    def line(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count))

    def write(
        self, x: float, y: float, text: str, size: float, ink: tuple[int, int, int] | None = None
    ) -> None:
        px = max(6, round(size * self.width))
        self.pen.text((x * self.width, y * self.width), text, ink or self.ink(), _font(self.font, px))

    def box(self, x: float, y: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        width = self.width
        return x * width, y * width, max(right, x + 0.01) * width, max(bottom, y + 0.01) * width

    @property
    def tall(self) -> float:
        return self.height / self.width


@lru_cache(maxsize=256)
def _font(path: str, px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not path:
        return ImageFont.load_default(px)
    return ImageFont.truetype(path, px, layout_engine=ImageFont.Layout.BASIC)


def _photo(sheet: _Sheet) -> None:
    """A soft picture of blobs."""
    rng = sheet.rng
    small = Image.new("RGB", (6, 12))
    small.putdata([sheet.colour() for _ in range(72)])
    sheet.image.paste(small.resize((sheet.width, sheet.height), Image.Resampling.BICUBIC))
    for _ in range(rng.randrange(0, 14)):
        x, y, r = rng.random(), rng.random() * sheet.tall, rng.uniform(0.02, 0.3)
        sheet.pen.ellipse(sheet.box(x - r, y - r, x + r, y + r), sheet.colour())


def _prose(sheet: _Sheet) -> None:
    """A page of a book."""
    rng = sheet.rng
    size, y = rng.uniform(0.025, 0.05), rng.uniform(0.08, 0.3)
    ink = sheet.ink()
    while y < sheet.tall - 0.1:
        sheet.write(0.06, y, sheet.line(rng.randrange(2, 8)), size, ink)
        y += size * rng.choice((1.5, 1.5, 1.5, 3))


def _chat(sheet: _Sheet) -> None:
    rng = sheet.rng
    y = 0.2
    mine, theirs = sheet.colour(), sheet.colour()
    while y < sheet.tall - 0.2:
        left = rng.random() < 0.5
        wide, high = rng.uniform(0.2, 0.65), rng.uniform(0.08, 0.25)
        x = 0.14 if left else 0.86 - wide
        sheet.pen.rounded_rectangle(
            sheet.box(x, y, x + wide, y + high), sheet.width // 40, theirs if left else mine
        )
        sheet.pen.ellipse(
            sheet.box(0.02 if left else 0.88, y, 0.12 if left else 0.98, y + 0.1), sheet.colour()
        )
        sheet.write(x + 0.03, y + 0.02, sheet.line(max(1, int(wide * 6))), 0.038)
        y += high + rng.uniform(0.03, 0.1)


def _map(sheet: _Sheet) -> None:
    rng = sheet.rng
    for _ in range(rng.randrange(8, 30)):
        points = [
            (rng.uniform(-0.1, 1.1) * sheet.width, rng.uniform(-0.1, 1.1) * sheet.height) for _ in range(3)
        ]
        sheet.pen.line(points, sheet.colour(), max(1, int(rng.uniform(0.004, 0.03) * sheet.width)))
    for _ in range(rng.randrange(3, 12)):
        sheet.write(rng.random(), rng.random() * sheet.tall, sheet.word(), 0.03)


def _bars(sheet: _Sheet) -> None:
    """Charts."""
    rng = sheet.rng
    y = 0.2
    while y < sheet.tall - 0.5:
        count = rng.randrange(4, 14)
        for index in range(count):
            top = y + rng.uniform(0, 0.35)
            sheet.pen.rectangle(
                sheet.box(0.05 + index * 0.9 / count, top, 0.05 + (index + 0.7) * 0.9 / count, y + 0.36),
                sheet.colour(),
            )
        sheet.write(0.05, y + 0.38, sheet.line(3), 0.04)
        y += 0.5


def _board(sheet: _Sheet) -> None:
    """A game's board."""
    rng = sheet.rng
    count = rng.randrange(4, 12)
    side = 1 / count
    for row in range(int(sheet.tall / side)):
        for column in range(count):
            box = sheet.box(column * side, row * side, (column + 0.94) * side, (row + 0.94) * side)
            draw = sheet.pen.ellipse if rng.random() < 0.3 else sheet.pen.rectangle
            draw(box, sheet.colour())


def _noise(sheet: _Sheet) -> None:
    """Nothing, or flicker."""
    rng = sheet.rng
    if rng.random() < 0.4:
        return
    scale = rng.choice((1, 2, 4, 16))
    noise = Image.effect_noise((sheet.width // scale, sheet.height // scale), rng.uniform(10, 90)).convert(
        "RGB"
    )
    sheet.image.paste(noise.resize((sheet.width, sheet.height)))


def _player(sheet: _Sheet) -> None:
    """A video with its controls."""
    rng = sheet.rng
    top = rng.uniform(0.1, 0.7)
    sheet.pen.rectangle(sheet.box(0, top, 1, top + 0.56), sheet.colour())
    sheet.pen.polygon(
        [
            (0.44 * sheet.width, (top + 0.2) * sheet.width),
            (0.44 * sheet.width, (top + 0.36) * sheet.width),
            (0.58 * sheet.width, (top + 0.28) * sheet.width),
        ],
        sheet.colour(200, 256),
    )
    sheet.pen.line(sheet.box(0.05, top + 0.52, 0.95, top + 0.52), sheet.colour(), 6)
    for index in range(rng.randrange(2, 7)):
        sheet.write(0.05, top + 0.65 + index * 0.14, sheet.line(rng.randrange(2, 6)), 0.042)


def _cards(sheet: _Sheet) -> None:
    """A page of outlined boxes with words that nobody knows."""
    rng = sheet.rng
    y, radius, ink = rng.uniform(0.12, 0.3), rng.randrange(0, 30), sheet.ink()
    while y < sheet.tall - 0.15:
        high = rng.uniform(0.1, 0.3)
        sheet.pen.rounded_rectangle(sheet.box(0.04, y, 0.96, y + high), radius, sheet.colour(), ink, 3)
        sheet.write(0.08, y + 0.02, sheet.line(rng.randrange(1, 4)), rng.uniform(0.03, 0.055))
        y += high + rng.uniform(0.01, 0.08)


def _icons(sheet: _Sheet) -> None:
    """Another maker's home screen."""
    rng = sheet.rng
    columns = rng.randrange(3, 7)
    cell = 1 / columns
    y = rng.uniform(0.1, 0.5)
    while y < sheet.tall - cell:
        for column in range(columns):
            box = sheet.box((column + 0.2) * cell, y, (column + 0.8) * cell, y + 0.6 * cell)
            (sheet.pen.ellipse if columns % 2 else sheet.pen.rectangle)(
                box, sheet.colour(), sheet.colour(), 4
            )
            sheet.write((column + 0.2) * cell, y + 0.64 * cell, sheet.word()[:8], 0.026)
        y += cell * rng.uniform(1.1, 1.4)


def _almanac(sheet: _Sheet) -> None:
    """A month as a table of days."""
    rng = sheet.rng
    sheet.write(0.3, 0.15, sheet.line(2), 0.07)
    for number in range(35):
        x, y = number % 7 / 7, 0.35 + number // 7 * 0.2
        if rng.random() < 0.1:
            sheet.pen.ellipse(sheet.box(x + 0.01, y - 0.03, x + 0.12, y + 0.09), sheet.colour())
        sheet.write(x + 0.04, y, str(number + 1), 0.04)


def _console(sheet: _Sheet) -> None:
    """A terminal."""
    rng = sheet.rng
    sheet.pen.rectangle((0, 0, sheet.width, sheet.height), (rng.randrange(20),) * 3)
    y, ink = 0.05, sheet.colour(120, 256)
    while y < sheet.tall - 0.05:
        sheet.write(0.02, y, f"{rng.choice('$#>~')} {sheet.line(rng.randrange(0, 6))}", 0.032, ink)
        y += 0.045


def _feed(sheet: _Sheet) -> None:
    """Pictures with headlines."""
    rng = sheet.rng
    y = 0.15
    while y < sheet.tall - 0.2:
        small = Image.new("RGB", (3, 3))
        small.putdata([sheet.colour() for _ in range(9)])
        side = max(1, int(0.28 * sheet.width))
        place = (int(rng.choice((0.04, 0.68)) * sheet.width), int(y * sheet.width))
        sheet.image.paste(small.resize((side, side), Image.Resampling.BICUBIC), place)
        left = 0.36 if place[0] < sheet.width / 3 else 0.04
        for index in range(3):
            sheet.write(left, y + index * 0.07, sheet.line(3), 0.045 if index == 0 else 0.03)
        y += 0.36


def _gauges(sheet: _Sheet) -> None:
    """A dashboard."""
    rng = sheet.rng
    for row in range(int(sheet.tall / 0.5)):
        for column in range(2):
            x, y = 0.06 + column * 0.47, 0.1 + row * 0.5
            sheet.pen.arc(
                sheet.box(x, y, x + 0.4, y + 0.4),
                140,
                rng.randrange(160, 400),
                sheet.colour(),
                sheet.width // 25,
            )
            sheet.write(x + 0.12, y + 0.16, str(rng.randrange(1000)), 0.07)
            sheet.write(x + 0.1, y + 0.36, sheet.word(), 0.035)


def _table(sheet: _Sheet) -> None:
    """A web page of rules and numbers."""
    rng = sheet.rng
    sheet.pen.rectangle(sheet.box(0, 0, 1, 0.18), sheet.colour())
    sheet.write(0.04, 0.05, "www." + sheet.word() + ".example", 0.045)
    columns = rng.randrange(2, 5)
    for row in range(int((sheet.tall - 0.3) / 0.09)):
        y = 0.25 + row * 0.09
        sheet.pen.line(sheet.box(0.03, y - 0.02, 0.97, y - 0.02), sheet.ink(), 2)
        for column in range(columns):
            sheet.write(0.04 + column * 0.94 / columns, y, sheet.word()[:10], 0.03)


STYLES: tuple[Callable[[_Sheet], None], ...] = (
    _photo, _prose, _chat, _map, _bars, _board, _noise, _player, _cards, _icons,
    _almanac, _console, _feed, _gauges, _table,
)  # fmt: skip


def stranger(rng: random.Random, *, size_px: tuple[int, int], held_out: bool = False) -> Image.Image:
    """One screen of another world."""
    sheet = _Sheet(rng, *size_px)
    style = rng.choice(STYLES[-HELD_OUT:] if held_out else STYLES[:-HELD_OUT])
    style(sheet)
    if rng.random() < 0.6:
        sheet.write(0.04, 0.02, f"{rng.randrange(24)}:{rng.randrange(60):02d}", 0.04)
    return sheet.image
