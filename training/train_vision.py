"""Train the demo model that sees: one command, from the seed to a folder that ships.

    python -m training.train_vision --out RUN [--steps 6000] [--seconds 480] [--resume | --begin FOLDER]
    torchrun --standalone --nproc-per-node 4 -m training.train_vision --out RUN …

Draws its data as it goes, prints progress, keeps every checkpoint in RUN/kept, and writes RUN/vision (Hugging
Face folder) and RUN/vision.jsonl (for training.plot). With --fonts FOLDER (see training.make_fonts) it draws
with more fonts than ship. With --begin it starts from the weights of a folder, which may have fewer layers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import Glm4vForConditionalGeneration

from autoglm_serve.demo.paint import FONTS

from . import loop, shapes, vision_forward
from . import tokenizer as wording
from .corpus import sample
from .graft import graft
from .vision_data import (
    CLOCK_COLUMNS,
    KINDS,
    LABEL_NUMBER,
    LOOKS,
    MOST_BRANCHES,
    SHAPES,
    SIGNS,
    SLOTS,
    Screens,
    Shape,
)

VOCAB = 1536
LABELS = len(LABEL_NUMBER) + 1


def learn_words(run: Path, *, resume: bool, begin: Path | None = None) -> Tokenizer:
    """The run's tokenizer; a resumed run keeps the one it began with, whatever the world's words are by
    now.
    """
    path = run / "vision_tokenizer.json"
    if begin is not None and not (resume and path.exists()):
        path.write_bytes((begin / "tokenizer.json").read_bytes())
        resume = True
    if not (resume and path.exists()):
        wording.learn(sample(20000), special=wording.VISION_SPECIAL, vocab_size=VOCAB).save(str(path))
    return Tokenizer.from_file(str(path))


class Hints(nn.Module):
    """Auxiliary heads on the image embeddings, for training only: which label lies here, with which digits
    its element's centre is written, what the element looks like, what the clock shows, whether this is a
    screen of the world at all; and on the text, which words are the errand. They teach reading before a word
    is answered.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.label = nn.Linear(width, LABELS)
        self.written = nn.Linear(width, SLOTS * SIGNS)
        self.look = nn.Linear(width, LOOKS)
        self.clock = nn.Linear(CLOCK_COLUMNS * width, 40)
        self.strange = nn.Linear(width, 2)
        self.task = nn.Linear(width, 2)

    def told(self, early: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """How far the words of the errand are from being known as such."""
        target = batch["task"].long()
        known = target >= 0
        weight = torch.tensor([1.0, 8.0], device=early.device)
        missed = functional.cross_entropy(
            self.task(early).flatten(0, 1).float(), target.flatten().clamp(min=0), weight, reduction="none"
        )
        return (missed * known.flatten()).sum() / known.sum().clamp(min=1)

    def forward(self, seen: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rows, columns = batch["hint_label"].shape[1:]
        label, look = batch["hint_label"].flatten(1).long(), batch["hint_look"].flatten(1).long()
        weight = torch.full((LABELS,), 1.0, device=seen.device)
        weight[0] = 0.05
        named = label > 0
        signs = self.written(seen).view(-1, SIGNS)
        corner = seen.view(-1, rows, columns, seen.shape[-1])[:, :1, :CLOCK_COLUMNS].flatten(1)
        digits = self.clock(corner).view(-1, 4, 10)
        scores = self.label(seen)
        right = (scores.argmax(-1) == label) & named
        return {
            "label": functional.cross_entropy(scores.flatten(0, 1).float(), label.flatten(), weight),
            "written": functional.cross_entropy(signs.float(), batch["hint_written"].flatten().long()),
            "look": functional.cross_entropy(self.look(seen).flatten(0, 1).float(), look.flatten()),
            "clock": functional.cross_entropy(digits.flatten(0, 1).float(), batch["hint_clock"].flatten()),
            "strange": functional.cross_entropy(self.strange(seen.mean(1)).float(), batch["hint_strange"]),
            "read": right.sum() / named.sum().clamp(min=1),
        }


def looking(looks: Tensor, point: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """How far the looking heads are from the tokens that show what a reply hangs on, before every token that
    depends on it; and how often the most looked at is one of them. `shown` int [rows, length] is the label
    that each token shows. Supervised attention: the text model alone takes thousands of steps longer to find
    out that looking pays.
    """
    where, label = point.long().unbind(-1)
    right = (shown[:, None] == label[..., None]) & (looks[:, 0] > UNSEEN)
    counted = (where >= 0) & right.any(-1)
    right = right[:, None].expand_as(looks)
    missed = -looks.masked_fill(~right, -1e4).logsumexp(-1).mean(1)
    found = right.gather(-1, looks.argmax(-1, keepdim=True))[..., 0].float().mean(1)
    total = counted.sum().clamp(min=1)
    return (missed * counted).sum() / total, (found * counted).sum() / total


UNSEEN = -5e3
"""What is masked is looked at with less than this."""
PATIENCE_S = 120
"""A worker that draws nothing for so long hangs; the run ends loudly, and goes on with --resume."""

HINT_WEIGHTS = {"label": 1.0, "written": 1.0, "look": 0.5, "clock": 0.3, "strange": 0.2}


def answer_loss(
    model: Glm4vForConditionalGeneration, hidden: Tensor, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean loss over the replies' tokens, and which tokens were right."""
    learnt = batch["label"][:, 1:] >= 0
    target = batch["label"][:, 1:][learnt].long()
    scores = model.lm_head(hidden[:, :-1][learnt]).float()
    return functional.cross_entropy(scores, target), scores.argmax(-1) == target


def whole_replies(right: Tensor, batch: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Per kind: how many replies had every token right under teacher forcing, and how many there were."""
    learnt = batch["label"][:, 1:] >= 0
    rows = torch.arange(len(learnt), device=right.device)[:, None].expand_as(learnt)[learnt]
    slot = rows * (MOST_BRANCHES + 1) + batch["branch"][:, 1:][learnt].long()
    wrong = torch.zeros(batch["kind"].numel(), device=right.device).index_add_(0, slot, (~right).float())
    kind = batch["kind"].flatten()
    found = {}
    for number, name in enumerate(KINDS):
        mine = kind == number
        found[name] = (float((wrong[mine] == 0).sum()), float(mine.sum()))
    return found


def train(options: argparse.Namespace) -> None:
    ranks = loop.Ranks.join()
    device = ranks.device
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    if ranks.rank == 0:
        learn_words(options.out, resume=options.resume, begin=options.begin)
    ranks.agree(0)
    tokenizer = learn_words(options.out, resume=True)
    model = shapes.vision_model(tokenizer)
    if options.begin and not options.resume:
        graft(options.begin, model)
    model = model.to(device)
    hints = Hints(model.config.text_config.hidden_size).to(device)
    parts: dict[str, nn.Module] = {"model": model, "hints": hints}
    plan = loop.Plan(
        steps=options.steps,
        seconds=options.seconds,
        peak_rate=options.rate,
        cool_down_share=options.cool_down,
    )
    optimiser = loop.optimiser([model, hints], rate=plan.peak_rate, cuda=device.type == "cuda")
    begin = loop.load(options.out, "vision", parts, optimiser) if options.resume else 0
    if options.compile:
        torch._dynamo.config.cache_size_limit = 64
        for name in ("_block", "_layer"):
            setattr(vision_forward, name, torch.compile(getattr(vision_forward, name), dynamic=True))
    seed = f"{options.seed}+{begin}"
    feed = feeding(options, tokenizer, ranks, seed)
    image = tokenizer.token_to_id("<|image|>")
    record = loop.Record(options.out / "vision.jsonl")
    step, kept_s = begin, 0.0
    while (done := ranks.agree(plan.progress(step - begin, record.elapsed_s()))) < 1:
        rate = plan.rate(step - begin, done)
        for group in optimiser.param_groups:
            group["lr"] = rate
        waiting_s = time.monotonic()
        drawn = next(feed)
        record.add("waited_s", time.monotonic() - waiting_s)
        batch = {name: value.to(device, non_blocking=True) for name, value in drawn.items()}
        found = learn(model, hints, batch, image, optimiser, ranks)
        step += 1
        if ranks.rank:
            continue
        if step % 5 == 0:
            note(record, found, batch)
        if step % options.report == 0:
            record.write(step, rate)
        if record.elapsed_s() - kept_s > options.keep_seconds:
            kept_s = record.elapsed_s()
            keep(options, step, parts, tokenizer, optimiser, seed)
    if ranks.rank == 0:
        record.write(step, 0.0)
        keep(options, step, parts, tokenizer, optimiser, seed)
    ranks.leave()


def learn(
    model: Glm4vForConditionalGeneration,
    hints: Hints,
    batch: dict[str, Tensor],
    image: int,
    optimiser: torch.optim.Optimizer,
    ranks: loop.Ranks,
) -> dict[str, Tensor]:
    """One step, with the gradient that all ranks share. Returns what `forward` found."""
    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=ranks.device.type == "cuda"):
        loss, found = forward(model, hints, batch, image)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    ranks.average([parameter for group in optimiser.param_groups for parameter in group["params"]])
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return found


def feeding(
    options: argparse.Namespace, tokenizer: Tokenizer, ranks: loop.Ranks, seed: str
) -> Iterator[dict[str, Tensor]]:
    source = Screens(
        tokenizer=tokenizer,
        fonts=[*FONTS, *sorted(options.fonts.glob("*.[ot]tf"))] if options.fonts else list(FONTS),
        seed=seed,
        rank=ranks.rank,
        ranks=ranks.count,
        reuse=options.reuse,
        shapes=shrunk(options.shrink),
    )
    return iter(
        DataLoader(source, batch_size=None, num_workers=options.workers,
                   pin_memory=ranks.device.type == "cuda", prefetch_factor=3 if options.workers else None,
                   timeout=PATIENCE_S if options.workers else 0)
    )  # fmt: skip


def shrunk(by: int) -> tuple[tuple[Shape, float], ...]:
    """The shapes of batches, with so many times fewer rows: for small machines."""
    return tuple((replace(shape, rows=max(1, shape.rows // by)), share) for shape, share in SHAPES
                 if by == 1 or shape.length <= 2048)  # fmt: skip


def keep(
    options: argparse.Namespace,
    step: int,
    parts: dict[str, nn.Module],
    tokenizer: Tokenizer,
    optimiser: torch.optim.Optimizer | None = None,
    seed: str = "",
) -> None:
    """The checkpoint, one more in the row of all, and the folder that ships: whatever ends the run, the
    latest is there.
    """
    shards = loop.save(options.out, "vision", step, parts, optimiser, seed=seed)
    kept = options.out / "kept" / f"{step:06d}"
    kept.mkdir(parents=True, exist_ok=True)
    loop.save(kept, "vision", step, parts, seed=seed)
    model = parts["model"]
    assert isinstance(model, Glm4vForConditionalGeneration)
    shapes.save_vision(model, tokenizer, options.out / "vision")
    if options.copy is not None:
        for path in (*shards, options.out / "vision.jsonl"):
            if path.exists():
                shutil.copy(path, options.copy / path.name)


def forward(
    model: Glm4vForConditionalGeneration, hints: Hints, batch: dict[str, Tensor], image: int
) -> tuple[Tensor, dict[str, Tensor]]:
    tokens = batch["tokens"].long()
    embedded = model.model.language_model.embed_tokens(tokens)
    pixels = roughen(batch["pixels"]) if model.training else batch["pixels"]
    seen = vision_forward.see(model.model.visual, pixels)
    embedded = embedded.to(seen.dtype).masked_scatter((tokens == image)[..., None], seen)
    found = hints(seen, batch)
    loss = sum(
        (weight * found[name] for name, weight in HINT_WEIGHTS.items()), torch.zeros((), device=tokens.device)
    )
    mask = vision_forward.branch_mask(batch["branch"])
    points = batch["image_point"], batch["text_point"]
    asked = tuple(point[..., 0].long().clamp(min=0) for point in points)
    read = vision_forward.read(model, embedded, batch["place"].long(), mask, asked)
    shown = torch.zeros(tokens.shape, dtype=torch.long, device=tokens.device)
    shown[tokens == image] = batch["hint_label"].flatten().long()
    found["look_up"], found["looked"] = looking(read.looks[0], points[0], shown)
    found["recall"], found["recalled"] = looking(read.looks[1], points[1], batch["mark"].long())
    found["told"] = hints.told(read.early, batch)
    loss = loss + found["look_up"] + 0.5 * found["recall"] + 0.2 * found["told"]
    answer, right = answer_loss(model, read.hidden, batch)
    found["answer"], found["right"] = answer, right
    return loss + 2 * answer, found


def roughen(pixels: Tensor) -> Tensor:
    """A little noise on a third of the pictures: engines differ in the last bit of every resized pixel."""
    count = len(pixels)
    chosen = torch.rand(count, 1, 1, 1, device=pixels.device) < 0.33
    strength = 6 * torch.rand(count, 1, 1, 1, device=pixels.device) * chosen
    noisy = pixels + strength * torch.randn(pixels.shape, device=pixels.device)
    return noisy.clamp(0, 255)


def note(record: loop.Record, found: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
    right = found.pop("right")
    for name, value in found.items():
        record.add(name, float(value.detach()))
    for kind, (count, of) in whole_replies(right, batch).items():
        if of:
            record.add(f"whole_{kind}", count, of)
            if kind == "errand":
                record.add(f"whole_errand_{batch['tokens'].shape[1]}", count, of)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fonts", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="end the schedule after this time at the latest"
    )
    parser.add_argument("--begin", type=Path, help="start from the weights and words of this folder")
    parser.add_argument("--shrink", type=int, default=1, help="so many times fewer rows a batch")
    parser.add_argument("--cool-down", type=float, default=0.4, help="share of the run at the end")
    parser.add_argument("--copy", type=Path, help="copy every checkpoint here, in place of the last")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--reuse", type=int, default=6, help="how often a drawn screen is asked about, on average"
    )
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--report", type=int, default=50)
    parser.add_argument("--keep-seconds", type=float, default=120)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)


if __name__ == "__main__":
    main()
