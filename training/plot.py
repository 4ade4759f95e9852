"""Draw a run's record: loss and accuracy over the steps of both models.

python -m training.plot RUN docs/images/demo-training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

VISION_LOSS = {
    "answer": "answers",
    "label": "labels (hint)",
    "written": "places (hint)",
    "look_up": "looking up (hint)",
    "recall": "looking back (hint)",
}
VISION_RIGHT = {
    "read": "labels read",
    "looked": "labels looked up",
    "whole_tap": "taps, to the last digit",
    "whole_action": "actions",
    "whole_question": "questions",
    "whole_errand": "steps of errands",
    "whole_talk": "talk",
}
SPEECH_LOSS = {"answer": "transcript"}
SPEECH_RIGHT = {"token": "tokens", "whole": "whole commands", "held_out": "held-out commands"}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def curves(axes: Any, lines: list[dict[str, Any]], names: dict[str, str]) -> None:
    for name, title in names.items():
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=title, linewidth=1.3)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


PANELS = (
    ("sight", "vision.jsonl", VISION_LOSS, VISION_RIGHT),
    ("hearing", "speech.jsonl", SPEECH_LOSS, SPEECH_RIGHT),
)


def draw(run: Path, out: Path) -> None:
    """A row for each of the two models that the run has a record of."""
    panels = [panel for panel in PANELS if (run / panel[1]).exists()]
    figure, axes = pyplot.subplots(
        len(panels), 2, figsize=(11, 3.5 * len(panels)), layout="constrained", squeeze=False
    )
    for (title, record, loss, right), (one, two) in zip(panels, axes, strict=True):
        lines = read(run / record)
        curves(one, lines, loss)
        curves(two, lines, right)
        one.set_yscale("log")
        one.set_title(f"{title}: loss")
        two.set_title(f"{title}: share right under teacher forcing")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    draw(options.run, options.out)


if __name__ == "__main__":
    main()
