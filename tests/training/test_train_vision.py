"""Where the model that sees is told to look, and what a run leaves behind."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

from autoglm_serve.demo import tasks
from autoglm_serve.demo.paint import FONTS
from autoglm_serve.demo.screens import imagine

np = pytest.importorskip("numpy", reason="training needs numpy")
torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

corpus, shapes, train_vision, vision_data, wording = (
    importlib.import_module(f"training.{name}")
    for name in ("corpus", "shapes", "train_vision", "vision_data", "tokenizer")
)
CASES = 300


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return wording.learn(corpus.sample(200), special=wording.VISION_SPECIAL, vocab_size=900)


def test_whatever_an_answer_hangs_on_is_marked_on_its_screen() -> None:
    rng = random.Random("marked")
    marked = 0
    for _ in range(CASES):
        screen = imagine(rng)
        grid = vision_data.grid_of(*screen.size_px)
        case = tasks.ask(rng.choice(("tap", "question")), screen, rng)
        if case.about is not None:
            marked += 1
            assert vision_data.LABEL_NUMBER[case.about] in vision_data.hints(screen, grid)["hint_label"]
    assert marked > CASES / 2


def test_an_answer_that_needs_the_clock_looks_at_the_clock(tokenizer) -> None:
    source = vision_data.Screens(tokenizer=tokenizer, fonts=list(FONTS), seed="clock", batch=4)
    batch = source.batch(0)
    corner = batch["hint_label"][:, 0, : vision_data.CLOCK_COLUMNS]
    clock = int(corner[0, 0])
    assert (corner == clock).all()
    assert (batch["hint_label"] == clock).sum() == corner.numel()
    told = [
        tokenizer.decode(batch["tokens"][row][where + 1 : where + 7].tolist())
        for row, points in enumerate(batch["point"])
        for where, label in points.tolist()
        if label == clock
    ]
    assert told
    assert any(":" in words for words in told)


def test_the_folder_that_ships_is_written_with_every_checkpoint(tokenizer, tmp_path: Path) -> None:
    model = shapes.vision_model(tokenizer)
    hints = train_vision.Hints(model.config.text_config.hidden_size)
    train_vision.keep(tmp_path, 7, {"model": model, "hints": hints}, tokenizer)
    assert (tmp_path / "vision" / "model.safetensors").exists()
    fresh = shapes.vision_model(tokenizer)
    assert train_vision.loop.load(tmp_path, "vision", {"model": fresh, "hints": hints}) == 7
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
