"""Where the model that sees is told to look, and what a run leaves behind."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_serve.demo import demo_model, tasks, words
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
ROOT = Path(__file__).parents[2]


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


@pytest.mark.slow
def test_two_ranks_stop_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    """A run at a toy's size: two processes on one processor, two legs."""

    def leg(*flags: str) -> None:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        options = ["--out", str(tmp_path), "--steps", "1", "--shrink", "56", "--workers", "1", *flags]
        here = {
            "PYTHONPATH": f"{ROOT}/src{os.pathsep}{ROOT}",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        command = [*torchrun, "-m", "training.train_vision", *options]
        ran = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, timeout=600)
        assert ran.returncode == 0, ran.stderr[-3000:]

    leg("--begin", str(demo_model().hf_dir))
    leg("--resume")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["000001", "000002"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "vision.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    ids = json.loads((tmp_path / "vision" / "tokenizer.json").read_text())["added_tokens"]
    assert ids == json.loads((demo_model().hf_dir / "tokenizer.json").read_text())["added_tokens"]
