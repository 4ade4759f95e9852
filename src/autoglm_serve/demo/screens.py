"""Synthetic phone screens as values: what stands where, from a random source.

Owns the layout of the synthetic world. Lengths are in units of 1/1080 of the screen's width, so that one
layout fits every resolution. Knows nothing of pixels, fonts, instructions or models. `paint` turns a screen
into a picture, `tasks` asks about it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from . import words
from .words import Language, Word

WIDTH = 1080.0
STEPS = 80
"""Like a real interface, the world is laid out on a grid: the middle of everything that can be touched lies
on one of so many lines down the screen. What an engine rounds differently then does not move a tap."""
SIZES_PX = (
    (720, 1600), (1080, 1920), (1080, 2160), (1080, 2340), (1080, 2400), (1170, 2532), (1440, 3200),
    (1600, 2560),
)  # fmt: skip

Kind: TypeAlias = Literal["app", "row", "switch", "button", "tab", "field"]
Layout: TypeAlias = Literal["home", "settings", "dialog", "shop", "form", "done", "loading", "lock"]
Sign: TypeAlias = Literal["", "done", "loading", "lock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in units."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A line of text at an anchor point, in units. `anchor` as Pillow spells it."""

    words: str
    x: float
    y: float
    size: float
    anchor: Literal["lm", "mm", "rm"] = "mm"
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Something that a finger can touch."""

    kind: Kind
    label: Word
    box: Box
    text: Text
    colour: int | None = None
    """Index into words.COLOURS, for buttons; into the icon palette, for apps."""
    on: bool | None = None
    """A switch's state, whether a tab is the selected one, or whether a field takes what is typed."""
    glyph: str = ""
    """What an icon shows: a character, or the name of a shape."""
    value: str = ""
    """What has been typed into a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    layout: Layout
    language: Language
    size_px: tuple[int, int]
    dark: bool
    clock: str
    battery: int
    tint: int
    """Which of the painter's palettes is used."""
    font: int
    elements: tuple[Element, ...]
    title: Word | None = None
    texts: tuple[Text, ...] = ()
    """Text that is not an element: titles, dates, questions in dialogs."""
    panel: Box | None = None
    """A dialog's box; everything behind it is dimmed."""
    back_arrow: bool = False
    sign: Sign = ""
    """The large picture in the middle of a page that has nothing to touch."""

    @property
    def height(self) -> float:
        return WIDTH * self.size_px[1] / self.size_px[0]

    def find(self, kind: Kind) -> tuple[Element, ...]:
        return tuple(element for element in self.elements if element.kind == kind)


def imagine(rng: random.Random, *, size_px: tuple[int, int] | None = None) -> Screen:
    """Draw one screen from the world, of any size or of the wanted one."""
    size = size_px or rng.choice(SIZES_PX)
    sketch = Sketch(
        rng=rng,
        language=rng.choice(("zh", "zh", "en")),
        height=WIDTH * size[1] / size[0],
    )
    layout: Layout = rng.choice(("home", "home", "settings", "settings", "dialog", "shop", "form"))
    match layout:
        case "home":
            add_home(sketch)
        case "settings":
            _settings(sketch)
        case "dialog":
            _dialog(sketch)
        case "shop":
            _shop(sketch)
        case "form":
            _form(sketch)
    return Screen(
        layout=layout,
        language=sketch.language,
        size_px=size,
        dark=rng.random() < 0.4,
        clock=f"{rng.randrange(24):02d}:{rng.randrange(60):02d}",
        battery=rng.randrange(5, 101),
        tint=rng.randrange(1 << 16),
        font=rng.randrange(1 << 16),
        elements=tuple(sketch.elements),
        title=sketch.title,
        texts=tuple(sketch.texts),
        panel=sketch.panel,
        back_arrow=sketch.back_arrow,
    )


@dataclass(slots=True, kw_only=True)
class Sketch:
    """A screen while it is being laid out."""

    rng: random.Random
    language: Language
    height: float
    elements: list[Element] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    title: Word | None = None
    panel: Box | None = None
    back_arrow: bool = False

    @property
    def step(self) -> float:
        return self.height / STEPS

    def whole_steps(self, length: float) -> float:
        return round(length / self.step) * self.step

    def top_of(self, top: float, height: float) -> float:
        """The top nearest to the wanted one that puts the middle on the grid."""
        return self.whole_steps(top + height / 2) - height / 2

    def say(self, word: Word) -> str:
        return word.text(self.language)

    def draw(self, pool: tuple[Word, ...]) -> Iterator[Word]:
        """Words of the pool in random order; no word comes twice on one screen."""
        taken = {element.label for element in self.elements} | {self.title}
        free = [word for word in pool if word not in taken]
        self.rng.shuffle(free)
        return iter(free)

    def free_colours(self) -> list[int]:
        """Button colours that no button has yet: a colour names one button."""
        used = {element.colour for element in self.elements if element.kind == "button"}
        return [index for index in range(len(words.COLOURS)) if index not in used]


def add_home(sketch: Sketch, installed: tuple[Word, ...] | None = None) -> None:
    """The home screen: these apps in their order, or any."""
    rng = sketch.rng
    columns = rng.choice((3, 4, 4, 4, 5))
    cell = WIDTH / columns
    icon = cell * rng.uniform(0.5, 0.64)
    size = rng.uniform(38, 46) if columns < 5 else rng.uniform(34, 38)
    pitch = sketch.whole_steps(icon + size * 2.4 + rng.uniform(20, 70))
    top = rng.uniform(150, 260)
    apps = sketch.draw(words.APPS) if installed is None else iter(installed)
    if rng.random() < 0.5:
        add_search_field(sketch, top)
        top += 190
    first = top = sketch.top_of(top, icon + size * 1.5)
    bottom = sketch.height - 130
    fill = rng.uniform(0.5, 1.0)
    while top + pitch < bottom:
        for column in range(columns):
            if rng.random() < fill and (word := next(apps, None)) is not None:
                add_app(sketch, word, cell * (column + 0.5), top, icon, size)
        top += pitch
    if not sketch.elements:  # one screen in two million: there must be something to tap
        add_app(sketch, next(apps), cell / 2, first, icon, size)


def add_app(sketch: Sketch, word: Word, x: float, top: float, icon: float, size: float) -> None:
    label = sketch.say(word)
    shapes = ("disc", "ring", "bars", "triangle", "cross", "square")
    below = top + icon + size * 0.85
    sketch.elements.append(
        Element(
            kind="app",
            label=word,
            box=Box(left=x - icon / 2, top=top, right=x + icon / 2, bottom=top + icon + size * 1.5),
            text=Text(words=label, x=x, y=below, size=min(size, 1.8 * icon / ems(label))),
            colour=sketch.rng.randrange(8),
            glyph=label[0] if sketch.rng.random() < 0.5 else sketch.rng.choice(shapes),
        )
    )


def ems(text: str) -> float:
    """A line's width over its size, roughly: Chinese characters are as wide as high, others about half."""
    return sum(1.0 if ord(letter) > 0x2E7F else 0.56 for letter in text)


def add_search_field(sketch: Sketch, top: float) -> None:
    word = words.SEARCH
    left, right = sketch.rng.uniform(40, 120), WIDTH - sketch.rng.uniform(40, 120)
    height = sketch.rng.uniform(95, 125)
    top = sketch.top_of(top, height)
    box = Box(left=left, top=top, right=right, bottom=top + height)
    text = Text(
        words=sketch.say(word), x=left + 90, y=box.centre[1], size=sketch.rng.uniform(40, 46), anchor="lm"
    )
    sketch.elements.append(Element(kind="field", label=word, box=box, text=text))


def _title_bar(sketch: Sketch, pool: tuple[Word, ...]) -> float:
    """The top of a page: its name, mostly with an arrow back. Returns where the content starts."""
    return add_title(sketch, sketch.rng.choice(pool))


def add_title(sketch: Sketch, title: Word) -> float:
    rng = sketch.rng
    sketch.title = title
    sketch.back_arrow = rng.random() < 0.7
    y = rng.uniform(150, 190)
    centred = rng.random() < 0.5
    sketch.texts.append(
        Text(
            words=sketch.say(sketch.title),
            x=WIDTH / 2 if centred else (150 if sketch.back_arrow else 60),
            y=y,
            size=rng.uniform(54, 66),
            anchor="mm" if centred else "lm",
            bold=True,
        )
    )
    return y + rng.uniform(80, 120)


def _settings(sketch: Sketch) -> None:
    rng = sketch.rng
    top = _title_bar(sketch, words.APPS[-24:] + words.SETTINGS)
    pitch = sketch.whole_steps(rng.uniform(125, 185))
    top = sketch.top_of(top, pitch)
    size = rng.uniform(42, 50)
    share = rng.uniform(0.2, 0.8)
    bottom = sketch.height - 100
    names = sketch.draw(words.SETTINGS)
    for _ in range(rng.randrange(5, 15)):
        if top + pitch > bottom:
            break
        add_row(sketch, next(names), top, pitch, size, switch=rng.random() < share)
        top += pitch + (sketch.step if rng.random() < 0.2 else 0)


def add_row(
    sketch: Sketch,
    word: Word,
    top: float,
    pitch: float,
    size: float,
    *,
    switch: bool,
    on: bool | None = None,
    rng: random.Random | None = None,
) -> None:
    """A line of a list. What is not said about its looks comes from `rng`."""
    rng = rng or sketch.rng
    icon = rng.random() < 0.5
    colour = rng.randrange(8)
    if switch and on is None:
        on = rng.random() < 0.5
    sketch.elements.append(
        Element(
            kind="switch" if switch else "row",
            label=word,
            box=Box(left=20, top=top, right=WIDTH - 20, bottom=top + pitch),
            text=Text(
                words=sketch.say(word), x=150 if icon else 60, y=top + pitch / 2, size=size, anchor="lm"
            ),
            colour=colour,
            on=on if switch else None,
            glyph="disc" if icon else "",
        )
    )


def _dialog(sketch: Sketch) -> None:
    rng = sketch.rng
    sketch.title = rng.choice(words.APPS + words.SETTINGS)
    line = rng.choice(words.DIALOG_LINES)
    names = sketch.draw(words.BUTTONS)
    add_dialog(sketch, sketch.title, line, tuple(next(names) for _ in range(rng.choice((1, 2, 2, 2, 3)))))


def add_dialog(sketch: Sketch, title: Word, line: Word, buttons: tuple[Word, ...]) -> None:
    rng = sketch.rng
    height = rng.uniform(430, 640)
    left = 15.0 * rng.randrange(4, 9)
    bottom = sketch.whole_steps(rng.uniform(0.35, 0.75) * sketch.height + height / 2) + 115
    panel = Box(left=left, top=bottom - height, right=WIDTH - left, bottom=bottom)
    sketch.panel = panel
    sketch.title = title
    heading = Text(
        words=sketch.say(title), x=WIDTH / 2, y=panel.top + 95, size=rng.uniform(50, 60), bold=True
    )
    question = Text(words=sketch.say(line), x=WIDTH / 2, y=panel.top + 215, size=rng.uniform(40, 46))
    sketch.texts += [heading, question]
    gap = 30.0
    each = (panel.right - panel.left - gap * (len(buttons) + 1)) / len(buttons)
    for index, name in enumerate(buttons):
        start = panel.left + gap + index * (each + gap)
        box = Box(left=start, top=panel.bottom - 175, right=start + each, bottom=panel.bottom - 55)
        add_button(sketch, name, box, size=rng.uniform(42, 48))


def add_button(sketch: Sketch, word: Word, box: Box, size: float) -> None:
    label = sketch.say(word)
    fits = 0.86 * (box.right - box.left) / ems(label)
    sketch.elements.append(
        Element(
            kind="button",
            label=word,
            box=box,
            text=Text(words=label, x=box.centre[0], y=box.centre[1], size=min(size, fits)),
            colour=sketch.rng.choice(sketch.free_colours()),
        )
    )


def _shop(sketch: Sketch) -> None:
    rng = sketch.rng
    top = rng.uniform(120, 170)
    if rng.random() < 0.8:
        add_search_field(sketch, top)
        top += 170
    bottom = sketch.height - 260
    columns = rng.choice((1, 2, 2))
    cell = (WIDTH - 60) / columns
    pitch = sketch.whole_steps(rng.uniform(200, 270) if columns == 1 else rng.uniform(330, 440))
    top = sketch.top_of(top, pitch)
    size = rng.uniform(42, 48)
    names = sketch.draw(words.ITEMS)
    while top + pitch < bottom and len(sketch.elements) < 12:
        for column in range(columns):
            add_card(sketch, next(names), 30 + column * cell, top, cell, pitch, size)
        top += pitch
    add_tabs(sketch)


def add_card(
    sketch: Sketch,
    word: Word,
    left: float,
    top: float,
    cell: float,
    pitch: float,
    size: float,
    rng: random.Random | None = None,
) -> None:
    """Something on offer. What is not said about its looks comes from `rng`."""
    rng = rng or sketch.rng
    box = Box(left=left + 12, top=top + 12, right=left + cell - 12, bottom=top + pitch - 12)
    wide = cell > 700
    text = Text(
        words=sketch.say(word),
        x=box.left + 240 if wide else box.centre[0],
        y=box.centre[1] if wide else box.bottom - 50,
        size=size,
        anchor="lm" if wide else "mm",
    )
    glyph = rng.choice(("disc", "ring", "bars", "triangle", "cross", "square"))
    colour = rng.randrange(8)
    sketch.elements.append(Element(kind="row", label=word, box=box, text=text, colour=colour, glyph=glyph))


def add_tabs(sketch: Sketch) -> None:
    rng = sketch.rng
    count = rng.choice((3, 4, 4, 5))
    chosen = rng.randrange(count)
    names = sketch.draw(words.TABS)
    each = WIDTH / count
    height = rng.uniform(150, 180)
    top = sketch.top_of(sketch.height - 40 - height, height)
    for index in range(count):
        word = next(names)
        box = Box(left=each * index, top=top, right=each * (index + 1), bottom=top + height)
        label = sketch.say(word)
        size = min(rng.uniform(36, 42), 0.94 * each / ems(label))
        text = Text(words=label, x=box.centre[0], y=box.bottom - 40, size=size)
        sketch.elements.append(Element(kind="tab", label=word, box=box, text=text, on=index == chosen))


def _form(sketch: Sketch) -> None:
    rng = sketch.rng
    top = sketch.top_of(_title_bar(sketch, words.BUTTONS[:20] + words.APPS[:20]), 125)
    for word in rng.sample(words.FIELDS, rng.randrange(1, 4)):
        box = Box(left=60, top=top, right=WIDTH - 60, bottom=top + 125)
        text = Text(words=sketch.say(word), x=100, y=box.centre[1], size=rng.uniform(42, 48), anchor="lm")
        sketch.elements.append(Element(kind="field", label=word, box=box, text=text))
        top += sketch.whole_steps(rng.uniform(165, 200))
    top += sketch.whole_steps(rng.uniform(0, 160))
    names = sketch.draw(words.BUTTONS)
    stacked = rng.random() < 0.6
    for index in range(rng.choice((2, 3, 4))):
        left = 60.0 if stacked or index % 2 == 0 else 560.0
        right = WIDTH - 60 if stacked or index % 2 == 1 else 520.0
        box = Box(left=left, top=top, right=right, bottom=top + 125)
        if box.bottom > sketch.height - 80:
            break
        add_button(sketch, next(names), box, size=rng.uniform(44, 52))
        if stacked or index % 2 == 1:
            top += sketch.whole_steps(rng.uniform(165, 220))
