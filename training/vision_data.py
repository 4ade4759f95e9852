"""Batches for the model that sees: drawn screens at the model's resolution, with many tasks on each.

One screen is drawn once and asked about many times: the picture is the shared prefix of a sequence, every
task is a branch that sees the prefix and itself but no other branch. Owns sequences, positions and the
hints of the auxiliary heads; the world itself belongs to autoglm_serve.demo.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info

from autoglm_serve.demo import talk, words
from autoglm_serve.demo.paint import paint
from autoglm_serve.demo.screens import SIZES_PX, WIDTH, Element, Screen, Text, imagine
from autoglm_serve.demo.tasks import Task, ask, thousandths

from .corpus import disguise, system_prompt
from .shapes import IMAGE_MAX_TOKENS, PATCH

CELL_PX = 2 * PATCH
BRANCHES = 10
MOST_BRANCHES = 40
MOST_POINTS = 160
KINDS = ("tap", "action", "question", "talk")
LENGTH = 832
LABEL_NUMBER = {word: index + 1 for index, word in enumerate((*words.ALL, words.CLOCK))}
"""Labels of the auxiliary head; 0 is none."""
CLOCK_COLUMNS = 2
"""The clock lies under so many image tokens, the first of the first row."""
FILTERS = (
    Image.Resampling.BICUBIC, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS,
    Image.Resampling.BOX,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Image tokens, down and across."""

    rows: int
    columns: int


def grid_of(width_px: int, height_px: int) -> Grid:
    """The image tokens of a picture, as both engines count them."""
    beta = math.sqrt(width_px * height_px / (IMAGE_MAX_TOKENS * CELL_PX**2))
    if beta <= 1:
        return Grid(rows=max(1, round(height_px / CELL_PX)), columns=max(1, round(width_px / CELL_PX)))
    return Grid(rows=int(height_px / beta / CELL_PX), columns=int(width_px / beta / CELL_PX))


def sizes_by_grid() -> dict[Grid, list[tuple[int, int]]]:
    found: dict[Grid, list[tuple[int, int]]] = {}
    for size in SIZES_PX:
        found.setdefault(grid_of(*size), []).append(size)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    screen: Screen
    picture: np.ndarray


KEPT_AT_LEAST, KEPT_AT_MOST = 128, 1200
"""Pictures of one grid that a worker keeps: at most about 4 GB a worker."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One task, as it is said."""

    words: str
    reply: str
    kind: int
    about: int = 0
    """Number of the label that the reply hangs on; 0 for none."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The tokens that coordinates are written with."""

    start: int
    inside: frozenset[int]


def _looks_up(prompt: list[int], reply: list[int], marks: Marks) -> Iterator[int]:
    """Places in prompt + reply before which the model must look at the screen: ahead of every digit of a
    coordinate, or where there is none, ahead of every token of the reply.
    """
    if marks.start not in reply:
        yield from range(len(prompt) - 1, len(prompt) + len(reply) - 1)
        return
    place = reply.index(marks.start)
    yield len(prompt) + place
    while reply[place := place + 1] in marks.inside:
        yield len(prompt) + place


@dataclass(slots=True, kw_only=True)
class Sequence:
    """One sequence while it is built: a prefix (branch 0) and branches, with the positions of M-RoPE."""

    tokens: list[int]
    branch: list[int]
    place: list[tuple[int, int, int]]
    label: list[int]
    kind: list[int]
    """What each branch is: an index into KINDS, in the order of the branches."""
    points: list[tuple[int, int]]
    """Where a branch must know its label's place, and that label's number."""
    next_place: int = 0

    def prefix(self, ids: list[int]) -> None:
        self._add(ids, 0, self.next_place, learn_from=len(ids))
        self.next_place += len(ids)

    def image(self, token: int, grid: Grid) -> None:
        start = self.next_place
        for row in range(grid.rows):
            for column in range(grid.columns):
                self.tokens.append(token)
                self.branch.append(0)
                self.label.append(-100)
                self.place.append((start, start + row, start + column))
        self.next_place += max(grid.rows, grid.columns)

    def ask(self, number: int, asked: Asked, prompt: list[int], reply: list[int], marks: Marks) -> None:
        self.kind.append(asked.kind)
        if asked.about:
            self.points += [
                (len(self.tokens) + place, asked.about) for place in _looks_up(prompt, reply, marks)
            ]
        self._add(prompt + reply, number, self.next_place, learn_from=len(prompt))

    def _add(self, ids: list[int], branch: int, start: int, *, learn_from: int) -> None:
        for index, token in enumerate(ids):
            self.tokens.append(token)
            self.branch.append(branch)
            self.place.append((start + index,) * 3)
            self.label.append(token if index >= learn_from else -100)


class Screens(IterableDataset[dict[str, torch.Tensor]]):
    """An endless stream of batches; each worker draws its own, all from one seed.

    Drawing costs most, so a worker keeps what it drew and, with `reuse` above 1, takes that share of its
    screens from there; what is asked about them is new each time.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        fonts: list[Path],
        seed: str,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        reuse: int = 1,
    ) -> None:
        self._tokenizer = tokenizer
        self._fonts = fonts
        self._seed = seed
        self._batch = batch
        self._rank = rank
        self._ranks = ranks
        self._reuse = reuse
        self._drawn: dict[Grid, list[Drawn]] = {}
        self._marks = Marks(self._id("=["), frozenset(self._id(mark) for mark in "0123456789,"))

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self._rank + worker * self._ranks
        while True:
            yield self.batch(number)
            number += workers * self._ranks

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"train:{self._seed}:{number}")
        if number % 6 == 5:
            return self.stack([self._talk(rng) for _ in range(self._batch // 2)], None, [])
        grid = rng.choice([grid_of(*size) for size in SIZES_PX])
        sequences, pictures = [], []
        while len(sequences) < self._batch:
            drawn = self._draw(grid, rng)
            sequence = self.about(drawn.screen, grid, rng)
            if len(sequence.tokens) <= LENGTH:
                sequences.append(sequence)
                pictures.append((drawn.picture, hints(drawn.screen, grid)))
        return self.stack(sequences, grid, pictures)

    def _draw(self, grid: Grid, rng: random.Random) -> Drawn:
        kept = self._drawn.setdefault(grid, [])
        if len(kept) >= KEPT_AT_LEAST and rng.random() > 1 / self._reuse:
            return rng.choice(kept)
        screen = imagine(rng, size_px=rng.choice(sizes_by_grid()[grid]))
        drawn = Drawn(screen=screen, picture=draw(screen, grid, self._fonts, rng))
        if self._reuse > 1:
            kept.append(drawn)
            if len(kept) > KEPT_AT_MOST:
                kept[rng.randrange(len(kept))] = kept.pop()
        return drawn

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def about(self, screen: Screen, grid: Grid, rng: random.Random) -> Sequence:
        sequence = Sequence(tokens=[], branch=[], place=[], label=[], kind=[], points=[])
        text_first = rng.random() < 0.04
        opening = "[gMASK]<sop>" + self._system(rng) + self._history(screen, rng) + "<|user|>\n"
        first = self._case(screen, rng)
        if text_first:
            opening += first.words + rng.choice(("", "\n"))
        sequence.prefix(self._ids(opening + "<|begin_of_image|>"))
        sequence.image(self._id("<|image|>"), grid)
        sequence.prefix(self._ids("<|end_of_image|>"))
        if text_first:
            self._branch(sequence, 1, "", first, rng)
            return sequence
        newline = "\n" if rng.random() < 0.4 else ""
        for number in range(1, BRANCHES + 1):
            asked = self._case(screen, rng)
            self._branch(sequence, number, newline + asked.words, asked, rng)
        return sequence

    def _case(self, screen: Screen, rng: random.Random) -> Asked:
        if rng.random() < 0.05:
            asked, reply = talk.chat(rng)
            return Asked(disguise(asked, rng), reply, KINDS.index("talk"))
        task: Task = rng.choices(("tap", "action", "question"), (4, 3, 3))[0]
        case = ask(task, screen, rng)
        about = LABEL_NUMBER[case.about] if case.about else 0
        return Asked(disguise(case.instruction, rng), case.reply, KINDS.index(task), about)

    def _branch(self, sequence: Sequence, number: int, words: str, asked: Asked, rng: random.Random) -> None:
        opening, reply = "<|assistant|>\n", asked.reply
        if rng.random() < 0.08:
            opening += "<think></think>"
            reply = reply.partition("</think>")[2] or reply
        prompt = self._ids(words + opening)
        sequence.ask(number, asked, prompt, [*self._ids(reply), self._id("<|user|>")], self._marks)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        assert found is not None
        return int(found)

    def _system(self, rng: random.Random) -> str:
        return f"<|system|>\n{system_prompt(rng)}" if rng.random() < 0.35 else ""

    def _history(self, screen: Screen, rng: random.Random) -> str:
        """An earlier step of the same phone task, whose screenshot the agent has dropped."""
        if rng.random() > 0.12:
            return ""
        asked = self._case(screen, rng)
        return f"<|user|>\n{asked.words}<|assistant|>\n{asked.reply}"

    def _talk(self, rng: random.Random) -> Sequence:
        """A conversation without a picture."""
        sequence = Sequence(tokens=[], branch=[], place=[], label=[], kind=[], points=[])
        sequence.prefix(self._ids("[gMASK]<sop>" + self._system(rng) + "<|user|>\n"))
        number = 0
        while True:
            asked = self._said(rng)
            if (
                len(sequence.tokens) + len(self._ids(asked.words + asked.reply)) + 12 > LENGTH
                or number == MOST_BRANCHES
            ):
                return sequence
            number += 1
            self._branch(sequence, number, asked.words, asked, rng)

    def _said(self, rng: random.Random) -> Asked:
        kind = KINDS.index("talk")
        if rng.random() < 0.55:
            asked, reply = talk.chat(rng)
            return Asked(disguise(asked, rng), reply, kind)
        task: Task = rng.choices(("tap", "action", "question"), (2, 5, 2))[0]
        case = ask(task, imagine(rng), rng)
        if case.task == "action" and not case.needs_screen:
            return Asked(disguise(case.instruction, rng), case.reply, kind)
        chinese = any(ord(letter) > 0x2E7F for letter in case.instruction)
        reply = talk.NO_SCREEN_ZH if chinese else talk.NO_SCREEN_EN
        return Asked(disguise(case.instruction, rng), reply, kind)

    def stack(
        self,
        sequences: list[Sequence],
        grid: Grid | None,
        pictures: list[tuple[np.ndarray, dict[str, np.ndarray]]],
    ) -> dict[str, torch.Tensor]:
        count = len(sequences)
        tokens = np.zeros((count, LENGTH), np.int32)
        branch = np.full((count, LENGTH), -1, np.int16)
        label = np.full((count, LENGTH), -100, np.int32)
        place = np.zeros((3, count, LENGTH), np.int32)
        kind = np.full((count, MOST_BRANCHES + 1), -1, np.int8)
        point = np.full((count, MOST_POINTS, 2), -1, np.int32)
        for row, sequence in enumerate(sequences):
            end = len(sequence.tokens)
            tokens[row, :end] = sequence.tokens
            branch[row, :end] = sequence.branch
            label[row, :end] = sequence.label
            points = sequence.points[:MOST_POINTS]
            point[row, : len(points)] = np.array(points).reshape(-1, 2)
            kind[row, 1 : 1 + len(sequence.kind)] = sequence.kind
            place[:, row, :end] = np.array(sequence.place).T
        batch = {
            "tokens": tokens,
            "branch": branch,
            "label": label,
            "place": place,
            "kind": kind,
            "point": point,
        }
        if grid is not None:
            batch["pixels"] = np.stack([picture for picture, _ in pictures])
            batch["grid"] = np.array([grid.rows, grid.columns])
            for name in pictures[0][1]:
                batch[name] = np.stack([hint[name] for _, hint in pictures])
        return {name: torch.from_numpy(value) for name, value in batch.items()}


def draw(screen: Screen, grid: Grid, fonts: list[Path], rng: random.Random) -> np.ndarray:
    """The picture at the model's resolution, by way of a random larger one and a random filter."""
    width, height = grid.columns * CELL_PX, grid.rows * CELL_PX
    drawn_at = rng.choice((round(1.5 * width), 2 * width, 2 * width, 720, min(1080, screen.size_px[0])))
    picture = paint(screen, width_px=drawn_at, fonts=fonts)
    if rng.random() < 0.5:
        return np.asarray(picture.resize((width, height), rng.choice(FILTERS)))
    return letterboxed(picture, width, height, rng.choice(FILTERS))


def letterboxed(picture: Image.Image, width: int, height: int, resample: Image.Resampling) -> np.ndarray:
    """As llama.cpp fits a picture: its proportions kept, black bars around it. transformers stretches it."""
    scale = min(width / picture.width, height / picture.height)
    inner = (min(width, math.ceil(picture.width * scale)), min(height, math.ceil(picture.height * scale)))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return np.asarray(canvas)


def hints(screen: Screen, grid: Grid) -> dict[str, np.ndarray]:
    """What the auxiliary heads should find under each image token."""
    label = np.zeros((grid.rows, grid.columns), np.int16)
    written = np.full((grid.rows, grid.columns, SLOTS), -100, np.int8)
    look = np.zeros((grid.rows, grid.columns), np.int16)
    unit_x, unit_y = grid.columns / WIDTH, grid.rows / screen.height
    for element in screen.elements:
        box = element.box
        inside = (
            slice(int(box.top * unit_y), math.ceil(box.bottom * unit_y)),
            slice(int(box.left * unit_x), math.ceil(box.right * unit_x)),
        )
        look[inside] = _look(element.kind, element.on, element.colour)
        mark = _under(element.text, unit_x, unit_y)
        label[mark] = LABEL_NUMBER[element.label]
        written[mark] = _signs(screen, element)
    if screen.title is not None:
        label[_under(screen.texts[0], unit_x, unit_y)] = LABEL_NUMBER[screen.title]
    label[0, :CLOCK_COLUMNS] = LABEL_NUMBER[words.CLOCK]
    clock = np.array([int(digit) for digit in screen.clock.replace(":", "")], np.int64)
    return {"hint_label": label, "hint_written": written, "hint_look": look, "hint_clock": clock}


SLOTS, SIGNS = 6, 11
"""A tap is written in two numbers of up to three digits; the eleventh sign is none."""


def _signs(screen: Screen, element: Element) -> list[int]:
    """The digits that a tap on an element is written with."""
    digits = (str(number).ljust(3) for number in thousandths(screen, *element.box.centre))
    return [SIGNS - 1 if digit == " " else int(digit) for number in digits for digit in number]


def _look(kind: str, on: bool | None, colour: int | None) -> int:
    """A number for what an element looks like."""
    match kind:
        case "switch":
            return 2 if on else 1
        case "tab":
            return 4 if on else 3
        case "button":
            return 5 + (colour or 0)
        case "app":
            return 11
        case "row":
            return 12
        case _:
            return 13


LOOKS = 14


def _under(text: Text, unit_x: float, unit_y: float) -> tuple[slice, slice]:
    """The image tokens that a line of text covers, by its rough width."""
    width = text.size * sum(1.0 if ord(letter) > 0x2E7F else 0.56 for letter in text.words)
    left = text.x - (width / 2 if text.anchor == "mm" else 0)
    top = max(0, int((text.y - 0.45 * text.size) * unit_y))
    bottom = max(top + 1, math.ceil((text.y + 0.45 * text.size) * unit_y))
    first = max(0, int(left * unit_x))
    return slice(top, bottom), slice(first, max(first + 1, math.ceil((left + width) * unit_x)))
