"""One sequence of tokens while it is built: a trunk, and branches that see the trunk before them and
themselves.

A branch stands in the sequence where it forks off, so that looking backwards at the trunk shows exactly what
a conversation had shown by then. Owns positions of M-RoPE, what is learned, and what the attention is told.
Knows nothing of screens or words.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import Any

import numpy as np

IMAGE, TEXT = 0, 1
"""Where a branch is told to look."""


@dataclass(slots=True)
class Sequence:
    tokens: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    place: list[tuple[int, int, int]] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    mark: list[int] = field(default_factory=list)
    """Which label each token of text belongs to; 0 is none."""
    kind: list[int] = field(default_factory=list)
    """What each branch is, in the order of the branches."""
    points: list[tuple[int, int, int]] = field(default_factory=list)
    """Before which token to look, for which label, and where."""
    pictures: list[Any] = field(default_factory=list)
    task: tuple[int, int] = (0, 0)
    """From where to where the errand is said on the trunk."""
    trunk: Strand = field(init=False)

    def __post_init__(self) -> None:
        self.trunk = Strand(self, 0, 0)

    def fork(self, kind: int) -> Strand:
        self.kind.append(kind)
        return Strand(self, len(self.kind), self.trunk.place)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class Strand:
    """The trunk or one branch: where the next token goes."""

    sequence: Sequence
    number: int
    place: int

    def text(self, ids: Several[int], marks: Several[int] | None = None, *, learn: bool = False) -> None:
        whole, count = self.sequence, len(ids)
        whole.tokens += ids
        whole.branch += [self.number] * count
        whole.place += [(place,) * 3 for place in range(self.place, self.place + count)]
        whole.label += ids if learn else [-100] * count
        whole.mark += marks if marks is not None else [0] * count
        self.place += count

    def image(self, token: int, rows: int, columns: int, picture: Any) -> None:
        whole, start, count = self.sequence, self.place, rows * columns
        whole.tokens += [token] * count
        whole.branch += [self.number] * count
        whole.place += [
            (start, start + row, start + column) for row in range(rows) for column in range(columns)
        ]
        whole.label += [-100] * count
        whole.mark += [0] * count
        whole.pictures.append(picture)
        self.place += max(rows, columns)

    def look(self, before: int, label: int, where: int) -> None:
        """Ahead of the token `before`, counted from the next one to come, look for a label."""
        self.sequence.points.append((len(self.sequence.tokens) + before - 1, label, where))


def stacked(
    sequences: Several[Sequence], *, length: int, most_branches: int, most_points: int
) -> dict[str, np.ndarray]:
    """Sequences as one batch, padded; pictures stay outside."""
    count = len(sequences)
    tokens = np.zeros((count, length), np.int32)
    branch = np.full((count, length), -1, np.int16)
    label = np.full((count, length), -100, np.int32)
    mark = np.zeros((count, length), np.int16)
    place = np.zeros((3, count, length), np.int32)
    kind = np.full((count, most_branches + 1), -1, np.int8)
    task = np.full((count, length), -1, np.int8)
    points = np.full((2, count, most_points, 2), -1, np.int32)
    for row, sequence in enumerate(sequences):
        end = len(sequence)
        tokens[row, :end] = sequence.tokens
        branch[row, :end] = sequence.branch
        label[row, :end] = sequence.label
        mark[row, :end] = sequence.mark
        place[:, row, :end] = np.array(sequence.place).T
        kind[row, 1 : 1 + len(sequence.kind)] = sequence.kind
        if sequence.task != (0, 0):
            task[row, :end] = branch[row, :end] * 0
            task[row, slice(*sequence.task)] = 1
        for where in (IMAGE, TEXT):
            mine = [point[:2] for point in sequence.points if point[2] == where][:most_points]
            if mine:
                points[where, row, : len(mine)] = mine
    return {
        "tokens": tokens, "branch": branch, "label": label, "mark": mark, "place": place, "kind": kind,
        "task": task, "image_point": points[IMAGE], "text_point": points[TEXT],
    }  # fmt: skip
