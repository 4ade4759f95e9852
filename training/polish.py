"""Teach the demo model that sees to find words, with its eyes at rest: a last stage that a CPU can do in
minutes.

    python -m training.polish --out RUN [--screens 500] [--seconds 900]

Looks at a bank of screens once, keeps what it saw, and goes on training the text model alone on new tasks
about them, with the pointing hint at full weight. Starts from the checkpoint in RUN and writes RUN/vision.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoglm_serve.demo.paint import FONTS
from autoglm_serve.demo.screens import SIZES_PX, Screen, imagine

from . import loop, shapes, vision_data, vision_forward
from .train_vision import Hints, answer_loss, learn_words, looking, whole_replies
from .vision_data import LENGTH, Grid, Screens, grid_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A screen, what the eyes make of it, and where its labels are."""

    screen: Screen
    embeddings: Tensor
    labels: Tensor


def look(model: nn.Module, count: int, seed: int) -> dict[Grid, list[Seen]]:
    """The bank: every screen drawn and seen once, half of them in each engine's fit."""
    bank: dict[Grid, list[Seen]] = {}
    for number in range(count):
        rng = random.Random(f"train:polish:{seed}:{number}")
        size = rng.choice(SIZES_PX)
        grid = grid_of(*size)
        screen = imagine(rng, size_px=size)
        picture = torch.from_numpy(vision_data.draw(screen, grid, list(FONTS), rng).copy())
        with torch.no_grad():
            embeddings = vision_forward.see(model.model.visual, picture[None])[0]
        labels = torch.from_numpy(vision_data.hints(screen, grid)["hint_label"])
        bank.setdefault(grid, []).append(Seen(screen=screen, embeddings=embeddings, labels=labels))
    return bank


def batch_of(source: Screens, seen: list[Seen], grid: Grid, rng: random.Random) -> dict[str, Tensor] | None:
    """New tasks about screens that were seen, cut to the longest; None where one grew too long."""
    sequences = [source.about(one.screen, grid, rng) for one in seen]
    longest = max(len(sequence.tokens) for sequence in sequences)
    if longest > LENGTH:
        return None
    batch = source.stack(sequences, None, [])
    cut = {name: batch[name][..., :longest] for name in ("tokens", "branch", "label", "place")}
    return {**batch, **cut, "hint_label": torch.stack([one.labels for one in seen])}


def polish(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    tokenizer = learn_words(options.out, resume=True)
    model = shapes.vision_model(tokenizer)
    parts: dict[str, nn.Module] = {"model": model, "hints": Hints(model.config.text_config.hidden_size)}
    begin = loop.load(options.out, "vision", parts)
    bank = look(model, options.screens, options.seed)
    learning: list[nn.Module] = [model.model.language_model, model.lm_head]
    plan = loop.Plan(steps=10**9, seconds=options.seconds, peak_rate=options.rate, warm_up_steps=30)
    optimiser = loop.optimiser(learning, rate=options.rate, cuda=False)
    source = Screens(tokenizer=tokenizer, fonts=list(FONTS), seed="polish", batch=options.batch)
    image = tokenizer.token_to_id("<|image|>")
    grids = [grid for grid, seen in bank.items() for _ in seen]
    record = loop.Record(options.out / "vision.jsonl")
    rng = random.Random(f"polish:{options.seed}:{begin}")
    step = begin
    while (done := plan.progress(step - begin, record.elapsed_s())) < 1:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step - begin, done)
        grid = rng.choice(grids)
        seen = [rng.choice(bank[grid]) for _ in range(options.batch)]
        batch = batch_of(source, seen, grid, rng)
        if batch is None:
            continue
        tokens = batch["tokens"].long()
        embedded = model.model.language_model.embed_tokens(tokens)
        pictures = torch.cat([one.embeddings for one in seen])
        embedded = embedded.masked_scatter((tokens == image)[..., None], pictures)
        mask = vision_forward.branch_mask(batch["branch"])
        asked = batch["point"][..., 0].long().clamp(min=0)
        hidden, looks = vision_forward.read(model, embedded, batch["place"].long(), mask, asked)
        missed, looked = looking(looks, batch, image)
        answer, right = answer_loss(model, hidden, batch)
        optimiser.zero_grad(set_to_none=True)
        (2 * answer + missed).backward()
        nn.utils.clip_grad_norm_([parameter for part in learning for parameter in part.parameters()], 1.0)
        optimiser.step()
        step += 1
        for name, value in {"look_up": missed, "looked": looked, "answer": answer}.items():
            record.add(name, float(value.detach()))
        for kind, (count, of) in whole_replies(right, batch).items():
            record.add(f"whole_{kind}", count, of)
        if step % 20 == 0:
            record.write(step, plan.rate(step - begin, done))
    loop.save(options.out, "vision", step, parts)
    shapes.save_vision(model, tokenizer, options.out / "vision")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--screens", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    polish(parser.parse_args())


if __name__ == "__main__":
    main()
