"""Where the model that sees is told to look, and what a run leaves behind."""

from __future__ import annotations

import argparse
import importlib
import random
from pathlib import Path

import pytest

from autoglm_serve.demo import tasks, words
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


def source(tokenizer, seed: str, rows: int = 4):
    shape = vision_data.Shape(length=1024, rows=rows, system_tokens=(10, 100))
    return vision_data.Screens(tokenizer=tokenizer, fonts=list(FONTS), seed=seed, shapes=((shape, 1.0),))


def test_an_answer_that_needs_the_clock_looks_at_the_clock(tokenizer) -> None:
    batches = source(tokenizer, "clock", rows=12)
    clock = vision_data.LABEL_NUMBER[words.CLOCK]
    told = []
    for number in range(8):
        batch = batches.batch(number)
        corner = batch["hint_label"][:, 0, : vision_data.CLOCK_COLUMNS]
        assert ((corner == clock).all(1) | (batch["hint_strange"] == 1)).all()
        assert (batch["hint_label"] == clock).sum() == (corner == clock).sum()
        told += [
            tokenizer.decode(batch["tokens"][row][where + 1 : where + 7].tolist())
            for row, points in enumerate(batch["image_point"])
            for where, label in points.tolist()
            if label == clock
        ]
    assert told
    assert any(":" in words for words in told)


def test_every_rank_has_the_same_shape_at_a_step(tokenizer) -> None:
    ranks = [
        vision_data.Screens(tokenizer=tokenizer, fonts=list(FONTS), seed="s", rank=rank, ranks=2)
        for rank in (0, 1)
    ]
    for step in range(20):
        assert ranks[0].shape(step) == ranks[1].shape(step)


def test_whatever_is_learned_ends_with_the_token_that_ends_a_reply(tokenizer) -> None:
    batch = source(tokenizer, "ends", rows=12).batch(1)
    ends = {tokenizer.token_to_id(token) for token in shapes.ENDS}
    for tokens, label, branch in zip(batch["tokens"], batch["label"], batch["branch"], strict=True):
        for number in range(1, int(branch.max()) + 1):
            learnt = tokens[(branch == number) & (label >= 0)].tolist()
            assert learnt[-1] in ends
            assert not ends & set(learnt[:-1])


def options(out: Path, copy: Path) -> argparse.Namespace:
    return argparse.Namespace(out=out, copy=copy)


def test_the_folder_that_ships_is_written_with_every_checkpoint(tokenizer, tmp_path: Path) -> None:
    model = shapes.vision_model(tokenizer)
    hints = train_vision.Hints(model.config.text_config.hidden_size)
    copies = tmp_path / "copies"
    copies.mkdir()
    train_vision.keep(options(tmp_path, copies), 7, {"model": model, "hints": hints}, tokenizer)
    shards = {path.name for path in tmp_path.glob("vision.pt.*")}
    assert {path.name for path in copies.iterdir()} == shards
    assert (tmp_path / "kept" / "000007" / "vision.pt.0").exists()
    assert (tmp_path / "vision" / "model.safetensors").exists()
    fresh = shapes.vision_model(tokenizer)
    assert train_vision.loop.load(tmp_path, "vision", {"model": fresh, "hints": hints}) == 7
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
