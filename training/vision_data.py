"""Batches for the model that sees: drawn screens at the model's resolution, with many tasks on each, and
whole errands with their histories.

One screen is drawn once and asked about many times: the picture is on the trunk of a sequence, every task is
a branch. An errand is a trunk, its history in text; every step that is learned is a branch with a picture of
its own. Owns what a batch holds and the hints of the auxiliary heads; the world itself belongs to
autoglm_serve.demo.
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

from autoglm_serve.demo import prompts, talk, words
from autoglm_serve.demo.errands import Errand, Step, decide, errand_on
from autoglm_serve.demo.paint import paint
from autoglm_serve.demo.screens import SIZES_PX, WIDTH, Element, Screen, Text, imagine
from autoglm_serve.demo.strangers import stranger
from autoglm_serve.demo.tasks import Task, ask, cannot_see, thousandths
from autoglm_serve.demo.words import Language
from autoglm_serve.demo.world import view

from .corpus import disguise, system_prompt
from .journeys import Journey, Moment, stored, travel
from .sequences import IMAGE, TEXT, Sequence, Strand, stacked
from .shapes import IMAGE_MAX_TOKENS, PATCH

CELL_PX = 2 * PATCH
BRANCHES = 10
MOST_BRANCHES = 40
MOST_POINTS = 320
ROOM = 140
"""Tokens that one more branch may take."""
KINDS = ("tap", "action", "question", "talk", "errand", "stranger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How long the sequences of a batch are, and how many it has."""

    length: int
    rows: int
    system_tokens: tuple[int, int]
    """How long a system prompt is, where there is one."""


BATCH_TOKENS = 57344
SHAPES = tuple(
    (Shape(length=length, rows=BATCH_TOKENS // length, system_tokens=system), share)
    for length, system, share in (
        (1024, (10, 260), 0.41), (2048, (50, 900), 0.24), (4096, (300, 2800), 0.18),
        (8192, (1500, 6300), 0.12), (16384, (4000, 13000), 0.05),
    )
)  # fmt: skip
"""Attention over long sequences costs most, and what is far away is always the same kind of noise."""
LABEL_NUMBER = {word: index + 1 for index, word in enumerate((*words.ALL, words.CLOCK))}
"""Labels of the auxiliary head; 0 is none."""
TYPED_NUMBER = len(LABEL_NUMBER) + 1
"""Marks the text that an errand wants typed."""
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
class Picture:
    """A picture as the model sees it, and what the auxiliary heads should find in it."""

    pixels: np.ndarray
    hints: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    screen: Screen
    picture: Picture


KEPT_AT_LEAST, KEPT_AT_MOST = 48, 200
"""Pictures of one grid, and journeys, that a worker keeps: at most about 4 GB a worker."""


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


def _looks_up(reply: list[int], marks: Marks) -> Iterator[int]:
    """Tokens of a reply before which the model must look at the screen: every digit of a coordinate, or where
    there is none, every token.
    """
    if marks.start not in reply:
        yield from range(len(reply))
        return
    place = reply.index(marks.start)
    yield place + 1
    while reply[place := place + 1] in marks.inside:
        yield place + 1


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in a text, and where it stands."""

    name: str
    number: int
    where: int = TEXT


class Screens(IterableDataset[dict[str, torch.Tensor]]):
    """An endless stream of batches; each worker draws its own, all from one seed. At one step, the batches of
    all ranks have one shape.

    Drawing costs most, so a worker keeps what it drew and, with `reuse` above 1, takes that share of its
    screens and journeys from there; what is asked about them is new each time.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        fonts: list[Path],
        seed: str,
        rank: int = 0,
        ranks: int = 1,
        reuse: int = 1,
        shapes: tuple[tuple[Shape, float], ...] = SHAPES,
    ) -> None:
        self._tokenizer = tokenizer
        self._fonts = fonts
        self._seed = seed
        self._rank = rank
        self._ranks = ranks
        self._reuse = reuse
        self._shapes = shapes
        self._drawn: dict[Grid, list[Drawn]] = {}
        self._travelled: dict[Grid, list[Journey]] = {}
        self._marks = Marks(self._id("=["), frozenset(self._id(mark) for mark in "0123456789,"))
        self._image = self._id("<|image|>")

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self._rank + worker * self._ranks
        while True:
            yield self.batch(number)
            number += workers * self._ranks

    def shape(self, step: int) -> Shape:
        rng = random.Random(f"shape:{self._seed}:{step}")
        return rng.choices([shape for shape, _ in self._shapes], [share for _, share in self._shapes])[0]

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"train:{self._seed}:{number}")
        shape = self.shape(number // self._ranks)
        grid = rng.choice([grid_of(*size) for size in SIZES_PX])
        sequences = [self.row(shape, grid, rng, first=index == 0) for index in range(shape.rows)]
        batch = stacked(sequences, length=shape.length, most_branches=MOST_BRANCHES, most_points=MOST_POINTS)
        pictures = [picture for sequence in sequences for picture in sequence.pictures]
        batch["pixels"] = np.stack([picture.pixels for picture in pictures])
        batch["grid"] = np.array([grid.rows, grid.columns])
        for name in pictures[0].hints:
            batch[name] = np.stack([picture.hints[name] for picture in pictures])
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def row(self, shape: Shape, grid: Grid, rng: random.Random, *, first: bool = False) -> Sequence:
        """One sequence. The first of a batch has a picture of the world, so that no batch lacks one."""
        chance = rng.random()
        while True:
            if chance < 0.05 and not first:
                sequence = self._talk(shape, rng)
            elif chance < 0.5 or first:
                sequence = self.about(shape, grid, rng, strange=not first and rng.random() < 0.08)
            else:
                sequence = self.errand(shape, self._journey(grid, rng), grid, rng)
            if 0 < len(sequence) <= shape.length:
                return sequence

    # --- pictures ---

    def _draw(self, grid: Grid, rng: random.Random) -> Drawn:
        kept = self._drawn.setdefault(grid, [])
        if len(kept) >= KEPT_AT_LEAST and rng.random() > 1 / self._reuse:
            return rng.choice(kept)
        screen = self._imagined(rng.choice(sizes_by_grid()[grid]), rng)
        drawn = Drawn(screen=screen, picture=self._picture(screen, grid, rng))
        if self._reuse > 1:
            _keep(kept, drawn, rng)
        return drawn

    def _imagined(self, size_px: tuple[int, int], rng: random.Random) -> Screen:
        """A screen of any kind, or one that an errand comes by."""
        if rng.random() < 0.6:
            return imagine(rng, size_px=size_px)
        moments = travel(rng, size_px=size_px).moments
        filled = [
            moment for moment in moments if any(path == moment.phone.path for path, _ in moment.phone.typed)
        ]
        return view(rng.choice(filled if filled and rng.random() < 0.5 else moments).phone)

    def _picture(self, screen: Screen, grid: Grid, rng: random.Random) -> Picture:
        return Picture(pixels=draw(screen, grid, self._fonts, rng), hints=hints(screen, grid))

    def _strange(self, grid: Grid, rng: random.Random) -> Picture:
        width, height = rng.choice(sizes_by_grid()[grid])
        wide = rng.choice((360, 480, 720))
        image = stranger(rng, size_px=(wide, round(wide * height / width)))
        return Picture(pixels=fitted(image, grid, rng), hints=no_hints(grid))

    def _journey(self, grid: Grid, rng: random.Random) -> Journey:
        kept = self._travelled.setdefault(grid, [])
        if len(kept) >= KEPT_AT_LEAST and rng.random() > 1 / self._reuse:
            return rng.choice(kept)
        journey = travel(rng, size_px=rng.choice(sizes_by_grid()[grid]))
        if self._reuse > 1:
            _keep(kept, journey, rng)
        return journey

    def _shown(self, journey: Journey, step: int, grid: Grid, rng: random.Random) -> Picture:
        if step not in journey.pictures:
            journey.pictures[step] = self._picture(view(journey.moments[step].phone), grid, rng)
        found = journey.pictures[step]
        assert isinstance(found, Picture)
        return found

    # --- tokens ---

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        assert found is not None
        return int(found)

    def _marked(self, text: str, mentions: list[Mention]) -> tuple[list[int], list[int]]:
        """Tokens, and the number of the name that each belongs to."""
        encoded = self._tokenizer.encode(text)
        marks = [0] * len(encoded.ids)
        plain = text.lower()
        for mention in sorted(mentions, key=lambda mention: len(mention.name)):
            start = plain.find(mention.name.lower())
            while start >= 0:
                end = start + len(mention.name)
                for index, (left, right) in enumerate(encoded.offsets):
                    if left < end and right > start:
                        marks[index] = mention.number
                start = plain.find(mention.name.lower(), end)
        return encoded.ids, marks

    def _end(self, reply: str) -> int:
        return self._id("</answer>" if "<answer>" in reply else "<|user|>")

    def _system(self, shape: Shape, rng: random.Random) -> list[int]:
        """The opening of a conversation: mostly with a system prompt, of a length for this shape."""
        begin = self._ids("[gMASK]<sop>")
        if shape.length <= 1024 and rng.random() < 0.4:
            return begin
        if rng.random() < 0.05:
            return begin + self._ids(f"<|system|>\n{system_prompt(rng)}")
        wanted = rng.randrange(*shape.system_tokens)
        text = prompts.system_prompt(rng, characters=wanted * 2)
        return begin + self._ids("<|system|>\n") + self._ids(text)[:wanted]

    # --- one screen, many tasks ---

    def about(self, shape: Shape, grid: Grid, rng: random.Random, *, strange: bool) -> Sequence:
        sequence = Sequence()
        drawn = self._draw(grid, rng)
        screen = drawn.screen
        strange = strange and bool(screen.elements)
        picture = self._strange(grid, rng) if strange else drawn.picture
        text_first = bool(screen.elements) and rng.random() < 0.06
        trunk = sequence.trunk
        trunk.text(self._system(shape, rng) + self._ids(self._history(screen, rng) + "<|user|>\n"))
        if text_first:
            first = self._case(screen, rng, strange)
            trunk.text(self._ids(first.words + rng.choice(("", "\n"))))
        trunk.text([self._id("<|begin_of_image|>")])
        trunk.image(self._image, grid.rows, grid.columns, picture)
        trunk.text([self._id("<|end_of_image|>")])
        if text_first:
            self._ask(sequence, "", first, rng)
            return sequence
        newline = "\n" if rng.random() < 0.4 else ""
        facts = prompts.Writer(rng, screen.language)
        errands = 0.0 if strange else rng.choice((0.0, 0.5, 1.0)) if screen.elements else 1.0
        while len(sequence.kind) < (3 * BRANCHES if shape.length > 1024 else BRANCHES):
            if rng.random() < errands:
                self._begin(sequence, screen, newline, facts, rng)
            else:
                asked = self._case(screen, rng, strange)
                self._ask(sequence, newline + asked.words, asked, rng)
            if len(sequence) + ROOM > shape.length:
                break
        return sequence

    def _begin(
        self, sequence: Sequence, screen: Screen, newline: str, facts: prompts.Writer, rng: random.Random
    ) -> None:
        """A branch with an errand's first step from here."""
        errand = errand_on(screen, rng)
        mentions = _mentions_of(errand)
        task, marks = self._marked(errand.said, mentions)
        named = "** Screen Info **\n\n" if rng.random() < 0.3 else ""
        more = self._ids("\n\n" + named + facts.facts()) if rng.random() < 0.6 else []
        begin = self._ids(newline)
        right = decide(errand, screen)
        reply = self._tokenizer.encode(right.reply)
        branch = sequence.fork(KINDS.index("errand"))
        branch.text(begin + task + more, [0] * len(begin) + marks + [0] * len(more))
        branch.text(self._ids("<|assistant|>\n"))
        self._look_around(branch, right, reply.ids, reply.offsets, mentions, screen.language)
        branch.text([*reply.ids, self._id("</answer>")], learn=True)

    def _case(self, screen: Screen, rng: random.Random, strange: bool = False) -> Asked:
        if rng.random() < 0.05:
            asked, reply = talk.chat(rng)
            return Asked(disguise(asked, rng), reply, KINDS.index("talk"))
        task: Task = rng.choices(("tap", "action", "question"), (4, 3, 3))[0]
        case = ask(task, screen, rng)
        if strange and (case.needs_screen or case.task != "action"):
            reply = cannot_see(_language_of(case.instruction))
            return Asked(disguise(case.instruction, rng), reply, KINDS.index("stranger"))
        about = LABEL_NUMBER[case.about] if case.about and not strange else 0
        return Asked(disguise(case.instruction, rng), case.reply, KINDS.index(task), about)

    def _ask(self, sequence: Sequence, words: str, asked: Asked, rng: random.Random) -> None:
        opening, reply = "<|assistant|>\n", asked.reply
        if rng.random() < 0.08:
            opening += "<think></think>"
            reply = reply.partition("</think>")[2] or reply
        branch = sequence.fork(asked.kind)
        branch.text(self._ids(words + opening))
        ids = self._ids(reply)
        if asked.about:
            for place in _looks_up(ids, self._marks):
                branch.look(place, asked.about, IMAGE)
        branch.text([*ids, self._end(reply)], learn=True)

    def _history(self, screen: Screen, rng: random.Random) -> str:
        """An earlier step of the same phone task, whose screenshot the agent has dropped."""
        if rng.random() > 0.12 or not screen.elements:
            return ""
        asked = self._case(screen, rng)
        end = "</answer>" if "<answer>" in asked.reply else ""
        return f"<|user|>\n{asked.words}<|assistant|>\n{asked.reply}{end}"

    # --- talk ---

    def _talk(self, shape: Shape, rng: random.Random) -> Sequence:
        """A conversation without a picture."""
        sequence = Sequence()
        sequence.trunk.text(self._system(shape, rng) + self._ids("<|user|>\n"))
        while len(sequence.kind) < MOST_BRANCHES // 2:
            asked = self._said(rng)
            if len(sequence) + len(self._ids(asked.words + asked.reply)) + 12 > shape.length:
                break
            self._ask(sequence, asked.words, asked, rng)
        return sequence

    def _said(self, rng: random.Random) -> Asked:
        kind = KINDS.index("talk")
        if rng.random() < 0.55:
            asked, reply = talk.chat(rng)
            return Asked(disguise(asked, rng), reply, kind)
        task: Task = rng.choices(("tap", "action", "question"), (2, 5, 2))[0]
        case = ask(task, imagine(rng), rng)
        if case.task == "action" and not case.needs_screen and case.target is None:
            return Asked(disguise(case.instruction, rng), case.reply, kind)
        chinese = _language_of(case.instruction) == "zh"
        reply = talk.NO_SCREEN_ZH if chinese else talk.NO_SCREEN_EN
        return Asked(disguise(case.instruction, rng), reply, kind)

    # --- errands ---

    def errand(self, shape: Shape, journey: Journey, grid: Grid, rng: random.Random) -> Sequence:
        """An errand's history in text, and some of its steps with the screen of the moment."""
        turns = self._turns(journey, rng)
        image = grid.rows * grid.columns
        system = self._system(shape, rng)
        room = shape.length - len(system) - 8
        last, told = -1, 0
        for number, turn in enumerate(turns):
            if told + turn.branch_tokens + image > room:
                break
            last = number
            told += turn.trunk_tokens
        if last < 0:
            return Sequence()
        last = max(rng.randrange(last + 1), rng.randrange(last + 1))
        room -= sum(turn.trunk_tokens for turn in turns[:last]) + turns[last].branch_tokens + image
        chosen = {last}
        for number in rng.sample(range(last), last):
            need = turns[number].branch_tokens + image
            if need <= room and len(chosen) < MOST_BRANCHES:
                chosen.add(number)
                room -= need
        sequence = Sequence()
        sequence.trunk.text(system)
        text_first = rng.random() < 0.15
        for number, turn in enumerate(turns[: last + 1]):
            sequence.trunk.text(self._ids("<|user|>\n"))
            if number in chosen:
                self._step(sequence, turn, journey, number, grid, rng, text_first=text_first)
            if number < last:
                before = len(sequence)
                sequence.trunk.text(turn.said, turn.marks)
                if number == 0:
                    sequence.task = (before, before + turn.task_tokens)
                sequence.trunk.text(turn.answered)
        return sequence

    def _turns(self, journey: Journey, rng: random.Random) -> list[_Turn]:
        mentions = _mentions_of(journey.errand)
        as_cut, facts, titled = rng.random() < 0.5, rng.random() < 0.75, rng.random() < 0.85
        titled_first = rng.random() < 0.3
        newline = "\n" if rng.random() < 0.4 else ""
        writer = prompts.Writer(rng, journey.errand.language)
        turns = []
        for number, moment in enumerate(journey.moments):
            said = journey.errand.said if number == 0 else ""
            task, marks = self._marked(said, mentions) if said else ([], [])
            named = titled and (number or titled_first)
            more = ("** Screen Info **\n\n" if named else "") + writer.facts() if facts else ""
            if said and more:
                more = "\n\n" + more
            extra = self._ids(more)
            answered = self._ids("<|assistant|>\n" + stored(moment.done, as_cut=as_cut))
            reply = self._tokenizer.encode(moment.right.reply)
            turns.append(
                _Turn(said=task + extra, marks=marks + [0] * len(extra), answered=answered,
                      task_tokens=len(task), newline=self._ids(newline), reply=reply.ids,
                      spans=reply.offsets, moment=moment)
            )  # fmt: skip
        return turns

    def _step(
        self,
        sequence: Sequence,
        turn: _Turn,
        journey: Journey,
        number: int,
        grid: Grid,
        rng: random.Random,
        *,
        text_first: bool,
    ) -> None:
        strange = rng.random() < 0.04
        branch = sequence.fork(KINDS.index("stranger" if strange else "errand"))
        if text_first:
            branch.text(turn.said, turn.marks)
        picture = self._strange(grid, rng) if strange else self._shown(journey, number, grid, rng)
        branch.text([self._id("<|begin_of_image|>")])
        branch.image(self._image, grid.rows, grid.columns, picture)
        branch.text([self._id("<|end_of_image|>")])
        if not text_first:
            branch.text(turn.newline + turn.said, [0] * len(turn.newline) + turn.marks)
        branch.text(self._ids("<|assistant|>\n"))
        if strange:
            reply = cannot_see(journey.errand.language)
            branch.text([*self._ids(reply), self._end(reply)], learn=True)
            return
        labels = journey.errand.start.world.language
        mentions = _mentions_of(journey.errand)
        self._look_around(branch, turn.moment.right, turn.reply, turn.spans, mentions, labels)
        branch.text([*turn.reply, self._id("</answer>")], learn=True)

    def _look_around(
        self,
        branch: Strand,
        step: Step,
        reply: list[int],
        spans: list[tuple[int, int]],
        mentions: list[Mention],
        labels: Language,
    ) -> None:
        """Names that are written are looked up where they come from: titles on the screen, the rest in what
        was said; and where a thing is, on the screen.
        """
        seen = None if step.seen is None else LABEL_NUMBER[step.seen]
        for mention in mentions:
            start = step.reply.find(mention.name)
            if mention.number != seen:
                for index in _within(spans, start, start + len(mention.name)):
                    branch.look(index, mention.number, TEXT)
        if step.seen is not None and seen is not None:
            name = step.seen.text(labels)
            start = step.reply.find(name)
            for index in _within(spans, start, start + len(name)):
                branch.look(index, seen, IMAGE)
        if step.sought is None:
            return
        number, name = LABEL_NUMBER[step.sought], step.sought.text(labels)
        start = step.reply.rfind(name, 0, len(step.thought) + 7)
        after = max(_within(spans, start, start + len(name)), default=0) + 1
        for index in range(after, min(after + 4, len(reply))):
            branch.look(index, number, IMAGE)
        if self._marks.start in reply and step.element is not None:
            for index in _looks_up(reply, self._marks):
                branch.look(index, number, IMAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One turn of an errand, in tokens."""

    said: list[int]
    """What the user's turn holds in text."""
    marks: list[int]
    answered: list[int]
    """What the history says was answered."""
    task_tokens: int
    newline: list[int]
    reply: list[int]
    spans: list[tuple[int, int]]
    moment: Moment

    @property
    def trunk_tokens(self) -> int:
        return len(self.said) + len(self.answered) + 2

    @property
    def branch_tokens(self) -> int:
        return len(self.said) + len(self.reply) + 8


def _within(spans: list[tuple[int, int]], start: int, end: int) -> list[int]:
    """Tokens that lie on a part of the text."""
    if start < 0:
        return []
    return [index for index, (left, right) in enumerate(spans) if left < end and right > start]


def _mentions_of(errand: Errand) -> list[Mention]:
    """The names in what was said."""
    language = errand.start.world.language
    named = {errand.app, errand.choice}
    texts = []
    for stage in errand.stages:
        named |= {stage.title, stage.target, stage.then}
        texts += [stage.text] if stage.text else []
    found = [Mention(word.text(language), LABEL_NUMBER[word]) for word in named if word is not None]
    return found + [Mention(text, TYPED_NUMBER) for text in texts]


def _language_of(text: str) -> Language:
    return "zh" if any(ord(letter) > 0x2E7F for letter in text) else "en"


def _keep(kept: list, thing: object, rng: random.Random) -> None:
    kept.append(thing)
    if len(kept) > KEPT_AT_MOST:
        kept[rng.randrange(len(kept))] = kept.pop()


def draw(screen: Screen, grid: Grid, fonts: list[Path], rng: random.Random) -> np.ndarray:
    """The picture at the model's resolution, by way of a random larger one and a random filter."""
    width = grid.columns * CELL_PX
    drawn_at = rng.choice((round(1.5 * width), 2 * width, 2 * width, 720, min(1080, screen.size_px[0])))
    return fitted(paint(screen, width_px=drawn_at, fonts=fonts), grid, rng)


def fitted(picture: Image.Image, grid: Grid, rng: random.Random) -> np.ndarray:
    """As one of the engines fits it."""
    width, height = grid.columns * CELL_PX, grid.rows * CELL_PX
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
        look[inside] = _look(element)
        mark = _under(element.text, unit_x, unit_y)
        label[mark] = LABEL_NUMBER[element.label]
        written[mark] = _signs(screen, element)
    if screen.title is not None:
        label[_under(screen.texts[0], unit_x, unit_y)] = LABEL_NUMBER[screen.title]
    label[0, :CLOCK_COLUMNS] = LABEL_NUMBER[words.CLOCK]
    clock = np.array([int(digit) for digit in screen.clock.replace(":", "")], np.int64)
    return {
        "hint_label": label, "hint_written": written, "hint_look": look, "hint_clock": clock,
        "hint_strange": np.array(0, np.int64),
    }  # fmt: skip


def no_hints(grid: Grid) -> dict[str, np.ndarray]:
    """The hints of a screen of another world: nothing is there."""
    return {
        "hint_label": np.zeros((grid.rows, grid.columns), np.int16),
        "hint_written": np.full((grid.rows, grid.columns, SLOTS), -100, np.int8),
        "hint_look": np.zeros((grid.rows, grid.columns), np.int16),
        "hint_clock": np.full(4, -100, np.int64),
        "hint_strange": np.array(1, np.int64),
    }


SLOTS, SIGNS = 6, 11
"""A tap is written in two numbers of up to three digits; the eleventh sign is none."""


def _signs(screen: Screen, element: Element) -> list[int]:
    """The digits that a tap on an element is written with."""
    digits = (str(number).ljust(3) for number in thousandths(screen, *element.box.centre))
    return [SIGNS - 1 if digit == " " else int(digit) for number in digits for digit in number]


def _look(element: Element) -> int:
    """A number for what an element looks like."""
    match element.kind:
        case "switch":
            return 2 if element.on else 1
        case "tab":
            return 4 if element.on else 3
        case "button":
            return 5 + (element.colour or 0)
        case "app":
            return 11
        case "row":
            return 12
        case "field":
            return 15 if element.value else 14 if element.on else 13


LOOKS = 16


def _under(text: Text, unit_x: float, unit_y: float) -> tuple[slice, slice]:
    """The image tokens that a line of text covers, by its rough width."""
    width = text.size * sum(1.0 if ord(letter) > 0x2E7F else 0.56 for letter in text.words)
    left = text.x - (width / 2 if text.anchor == "mm" else 0)
    top = max(0, int((text.y - 0.45 * text.size) * unit_y))
    bottom = max(top + 1, math.ceil((text.y + 0.45 * text.size) * unit_y))
    first = max(0, int(left * unit_x))
    return slice(top, bottom), slice(first, max(first + 1, math.ceil((left + width) * unit_x)))
