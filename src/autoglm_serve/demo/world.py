"""A phone with a state: apps, their pages, and what a finger, a key or time does to them.

Owns the pages and the transitions between them; all of it comes from a seed, and what has no place in a plan
is made up when it is first entered. Pure: a phone is a value, and every act returns the next one. Knows
nothing of errands, pictures or adb. `screens` owns how a page is laid out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from . import words
from .screens import (
    SIZES_PX,
    WIDTH,
    Box,
    Element,
    Screen,
    Sketch,
    Text,
    add_button,
    add_card,
    add_dialog,
    add_home,
    add_row,
    add_title,
)
from .words import Language, Word

Path: TypeAlias = tuple[Word, ...]
"""The labels from an app to a page of it; empty for the home screen."""
PageKind: TypeAlias = Literal["list", "shop", "form", "item", "done"]

CHOICES = tuple(
    (words.BUTTONS_BY_EN[right], words.BUTTONS_BY_EN[wrong])
    for right, wrong in (
        ("OK", "Cancel"), ("Allow", "Decline"), ("Retry", "Cancel"), ("Skip", "Download"),
        ("Agree", "Decline"), ("Save", "Delete"),
    )
)  # fmt: skip
"""What a dialog offers: what lets the errand go on, and what leads back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    title: Word
    line: Word
    buttons: tuple[Word, ...]
    right: Word
    """Whoever taps another one is led back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    kind: PageKind
    title: Word
    entries: tuple[Word, ...] = ()
    """Rows of a list, things of a shop, buttons of an item or a form."""
    switches: frozenset[Word] = frozenset()
    """Which entries can be switched on and off."""
    on: frozenset[Word] = frozenset()
    """Which of them are on at first."""
    fields: tuple[Word, ...] = ()
    waits: int = 0
    """How many looks it takes to load."""
    locked: bool = False
    """Behind a password that only the owner has."""
    dialog: Dialog | None = None
    """What comes up when the page is first entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What never changes while a phone is used."""

    seed: str
    language: Language
    size_px: tuple[int, int]
    dark: bool
    tint: int
    font: int
    apps: tuple[Word, ...]
    pages: Mapping[Path, Page] = field(default_factory=dict)
    """Pages with a part in the plan; every other one comes from the seed."""
    barred: frozenset[Word] = frozenset()
    """Words that no made-up page holds."""

    def page(self, path: Path) -> Page:
        return self.pages.get(path) or _made_up(self, path)

    def app_called(self, name: str) -> Word | None:
        plain = name.strip().lower()
        return next((app for app in words.APPS if plain in (app.zh.lower(), app.en.lower())), None)


def imagine_world(
    rng: random.Random, *, apps: tuple[Word, ...] = (), size_px: tuple[int, int] | None = None
) -> World:
    """A world of its own, with at least these apps."""
    others = rng.sample([app for app in words.APPS if app not in apps], rng.randrange(8, 20))
    return World(
        seed=f"{rng.getrandbits(48):x}",
        language=rng.choice(("zh", "en")),
        size_px=size_px or rng.choice(SIZES_PX),
        dark=rng.random() < 0.4,
        tint=rng.randrange(1 << 16),
        font=rng.randrange(1 << 16),
        apps=(*apps, *others),
    )


def _made_up(world: World, path: Path) -> Page:
    """A page that nobody planned."""
    rng = random.Random(f"{world.seed}:{[word.en for word in path]}")
    kind: PageKind = rng.choice(("list", "list", "shop", "form")) if len(path) < 4 else "done"
    title = path[-1]
    barred = world.barred | set(path)

    def some(pool: tuple[Word, ...], least: int, most: int) -> tuple[Word, ...]:
        free = [word for word in pool if word not in barred]
        return tuple(rng.sample(free, min(len(free), rng.randrange(least, most + 1))))

    match kind:
        case "list":
            entries = some(words.SETTINGS, 4, 14)
            switches = [word for word in entries if rng.random() < 0.3]
            on = [word for word in switches if rng.random() < 0.5]
            return Page(
                kind=kind, title=title, entries=entries, switches=frozenset(switches), on=frozenset(on)
            )
        case "shop":
            return Page(kind=kind, title=title, entries=some(words.ITEMS, 4, 10), fields=(words.SEARCH,))
        case "form":
            return Page(
                kind=kind, title=title, fields=some(words.FIELDS, 1, 3), entries=some(words.BUTTONS, 1, 3)
            )
        case _:
            return Page(kind="done", title=title)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A phone at one moment."""

    world: World
    path: Path = ()
    scroll: int = 0
    """How many entries have gone out at the top."""
    focus: Word | None = None
    typed: Mapping[tuple[Path, Word], str] = field(default_factory=dict)
    flipped: frozenset[tuple[Path, Word]] = frozenset()
    """Switches that are not as they were at first."""
    waits: int = 0
    answered: frozenset[Path] = frozenset()
    """Pages whose dialog is gone."""
    opened: frozenset[Path] = frozenset()
    """Pages whose password was given."""
    minute: int = 600

    @property
    def page(self) -> Page | None:
        return self.world.page(self.path) if self.path else None

    @property
    def dialog(self) -> Dialog | None:
        page = self.page
        return page.dialog if page and self.path not in self.answered else None

    @property
    def locked(self) -> bool:
        page = self.page
        return page is not None and page.locked and self.path not in self.opened

    def is_on(self, label: Word) -> bool:
        page = self.page
        return page is not None and (label in page.on) != ((self.path, label) in self.flipped)

    def value(self, label: Word) -> str:
        return self.typed.get((self.path, label), "")

    # --- acts ---

    def go(self, path: Path) -> Phone:
        waits = self.world.page(path).waits if path and path not in self.answered else 0
        return replace(self, path=path, scroll=0, focus=None, waits=waits)

    def home(self) -> Phone:
        return self.go(())

    def back(self) -> Phone:
        if self.focus is not None:
            return replace(self, focus=None)
        return self.go(self.path[:-1]) if self.path else self

    def launch(self, app: Word) -> Phone:
        return self.go((app,))

    def wait(self) -> Phone:
        """Some time has gone by."""
        return replace(self, waits=max(0, self.waits - 1), minute=self.minute + 1)

    def unlock(self) -> Phone:
        """The owner gives the password."""
        return replace(self, opened=self.opened | {self.path})

    def type(self, text: str) -> Phone:
        if self.focus is None:
            return self
        return replace(self, typed={**self.typed, (self.path, self.focus): text}, focus=None)

    def swipe(self, start: tuple[int, int], end: tuple[int, int]) -> Phone:
        """Along the screen, in thousandths: the page goes with the finger."""
        page = self.page
        if page is None or self.busy or abs(start[1] - end[1]) < 50:
            return self
        shown, of = _shown_of(self)
        if start[1] > end[1]:
            return replace(self, scroll=max(self.scroll, min(self.scroll + shown - 1, of - shown)))
        return replace(self, scroll=max(0, self.scroll - shown + 1))

    @property
    def busy(self) -> bool:
        """Whether what lies under a finger is not the page."""
        return self.waits > 0 or self.locked or self.dialog is not None

    def tap(self, x: int, y: int) -> Phone:
        """At a point in thousandths."""
        screen = view(self)
        hit = element_at(screen, x, y)
        if hit is None:
            return self if self.busy else replace(self, focus=None)
        return self.press(hit)

    def press(self, element: Element) -> Phone:
        """One of the elements of its view."""
        label = element.label
        if self.dialog is not None and self.waits == 0 and not self.locked:
            done = replace(self, answered=self.answered | {self.path})
            return done if label == self.dialog.right else done.back()
        match element.kind:
            case "app":
                return self.launch(label)
            case "switch":
                return replace(self, flipped=self.flipped ^ {(self.path, label)})
            case "field":
                return self if self.locked else replace(self, focus=label)
            case _:
                return self.go((*self.path, label))


def element_at(screen: Screen, x: int, y: int) -> Element | None:
    across, down = x * WIDTH / 1000, y * screen.height / 1000
    for element in screen.elements:
        box = element.box
        if box.left <= across <= box.right and box.top <= down <= box.bottom:
            return element
    return None


# --- how it looks ---


def view(phone: Phone) -> Screen:
    """What the phone shows."""
    world = phone.world
    rng = random.Random(f"look:{world.seed}:{[word.en for word in phone.path]}")
    sketch = Sketch(rng=rng, language=world.language, height=WIDTH * world.size_px[1] / world.size_px[0])
    page = phone.page
    layout = _lay_out(sketch, phone, page)
    return Screen(
        layout=layout,
        language=world.language,
        size_px=world.size_px,
        dark=world.dark,
        clock=f"{phone.minute // 60 % 24:02d}:{phone.minute % 60:02d}",
        battery=20 + world.tint % 80,
        tint=world.tint,
        font=world.font,
        elements=tuple(sketch.elements),
        title=sketch.title,
        texts=tuple(sketch.texts),
        panel=sketch.panel,
        back_arrow=sketch.back_arrow,
        sign=layout if layout in ("done", "loading", "lock") else "",
    )


def _lay_out(
    sketch: Sketch, phone: Phone, page: Page | None
) -> Literal["home", "settings", "dialog", "shop", "form", "done", "loading", "lock"]:
    if page is None:
        add_home(sketch, phone.world.apps)
        return "home"
    if phone.waits:
        _notice(sketch, words.LOADING)
        return "loading"
    if phone.locked:
        _notice(sketch, words.LOCKED)
        return "lock"
    if phone.dialog is not None:
        dialog = phone.dialog
        add_dialog(sketch, dialog.title, dialog.line, dialog.buttons)
        return "dialog"
    top = add_title(sketch, page.title)
    match page.kind:
        case "list":
            _lay_list(sketch, phone, page, top)
            return "settings"
        case "shop":
            _lay_shop(sketch, phone, page, top)
            return "shop"
        case "form" | "item":
            _lay_form(sketch, phone, page, top)
            return "form"
        case "done":
            sketch.texts.append(_middle(sketch, words.DONE_LINE))
            return "done"


def _middle(sketch: Sketch, word: Word) -> Text:
    return Text(words=sketch.say(word), x=WIDTH / 2, y=0.42 * sketch.height + 220, size=50)


def _notice(sketch: Sketch, word: Word) -> None:
    sketch.texts.append(_middle(sketch, word))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """How a list is laid out: the same on every visit."""

    pitch: float
    size: float
    top: float
    shown: int
    gap: bool


def _rows_of(sketch: Sketch, page: Page, top: float) -> _Rows:
    rng = sketch.rng
    pitch = sketch.whole_steps(rng.uniform(125, 185))
    size = rng.uniform(42, 50)
    top = sketch.top_of(top, pitch)
    if page.fields:
        top += pitch + sketch.whole_steps(60)
    return _Rows(
        pitch=pitch,
        size=size,
        top=top,
        shown=int((sketch.height - 100 - top) // pitch),
        gap=rng.random() < 0.5,
    )


def _shown_of(phone: Phone) -> tuple[int, int]:
    """How many entries fit on the page, and how many it has."""
    page = phone.page
    assert page is not None
    world = phone.world
    rng = random.Random(f"look:{world.seed}:{[word.en for word in phone.path]}")
    sketch = Sketch(rng=rng, language=world.language, height=WIDTH * world.size_px[1] / world.size_px[0])
    top = add_title(sketch, page.title)
    match page.kind:
        case "list":
            return _rows_of(sketch, page, top).shown, len(page.entries)
        case "shop":
            cells = _cells_of(sketch, top)
            return cells.shown, len(page.entries)
        case _:
            return len(page.entries), len(page.entries)


def _lay_list(sketch: Sketch, phone: Phone, page: Page, top: float) -> None:
    rows = _rows_of(sketch, page, top)
    y = rows.top
    for label in page.entries[phone.scroll : phone.scroll + rows.shown]:
        on = phone.is_on(label) if label in page.switches else None
        look = random.Random(f"{phone.world.seed}:{label.en}")
        add_row(sketch, label, y, rows.pitch, rows.size, switch=on is not None, on=on, rng=look)
        y += rows.pitch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    columns: int
    cell: float
    pitch: float
    size: float
    top: float
    shown: int


def _cells_of(sketch: Sketch, top: float) -> _Cells:
    rng = sketch.rng
    columns = rng.choice((1, 2, 2))
    pitch = sketch.whole_steps(rng.uniform(200, 270) if columns == 1 else rng.uniform(330, 440))
    size = rng.uniform(42, 48)
    below = top + 150
    top = sketch.top_of(below, pitch)
    top += sketch.step * (top < below)
    lines = max(1, int((sketch.height - 60 - top) // pitch))
    return _Cells(
        columns=columns, cell=(WIDTH - 60) / columns, pitch=pitch, size=size, top=top, shown=lines * columns
    )


def _lay_shop(sketch: Sketch, phone: Phone, page: Page, top: float) -> None:
    cells = _cells_of(sketch, top)
    _add_field(sketch, phone, words.SEARCH, sketch.top_of(top, 120), 120)
    for index, label in enumerate(page.entries[phone.scroll : phone.scroll + cells.shown]):
        row, column = divmod(index, cells.columns)
        look = random.Random(f"{phone.world.seed}:{label.en}")
        y = cells.top + row * cells.pitch
        add_card(sketch, label, 30 + column * cells.cell, y, cells.cell, cells.pitch, cells.size, rng=look)


def _add_field(sketch: Sketch, phone: Phone, label: Word, top: float, height: float) -> None:
    box = Box(left=60, top=top, right=WIDTH - 60, bottom=top + height)
    text = Text(words=sketch.say(label), x=100, y=box.centre[1], size=45, anchor="lm")
    sketch.elements.append(
        Element(
            kind="field", label=label, box=box, text=text, on=phone.focus == label, value=phone.value(label)
        )
    )


def _lay_form(sketch: Sketch, phone: Phone, page: Page, top: float) -> None:
    rng = sketch.rng
    y = sketch.top_of(top, 125)
    pitch = sketch.whole_steps(rng.uniform(165, 200))
    for label in page.fields:
        _add_field(sketch, phone, label, y, 125)
        y += pitch
    y += sketch.whole_steps(rng.uniform(0, 160))
    size = rng.uniform(44, 52)
    for label in page.entries:
        box = Box(left=60, top=y, right=WIDTH - 60, bottom=y + 125)
        add_button(sketch, label, box, size=size)
        y += pitch
