"""Train the demo model that hears: one command, from the seed to a folder that ships.

    python -m training.train_speech --out RUN [--steps 8000] [--seconds 480] [--resume]

Needs espeak-ng. Prints progress, keeps checkpoints in RUN, and writes RUN/speech (Hugging Face folder) and
RUN/speech.jsonl (for training.plot).

The encoder is llama.cpp's variant of GLM-ASR: no rotary part. Half of the sequences hold the whole 30 s
window, as llama.cpp feeds it, half only the embeddings of real sound, as transformers does: both engines
read the result.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import GlmAsrForConditionalGeneration

from autoglm_serve.demo import speech

from . import loop, shapes, speech_data
from . import tokenizer as wording
from .speech_data import Clips, Feed, Mel, Pool

VOCAB = 896
PROMPTS = (shapes.TRANSCRIBE, "Transcribe audio to text", "")
"""The processor's prompt, llama.cpp's, and none."""


def learn_words(run: Path, *, resume: bool) -> Tokenizer:
    """The run's tokenizer; a resumed run keeps the one it began with."""
    path = run / "speech_tokenizer.json"
    if not (resume and path.exists()):
        rng = random.Random("speech words")
        corpus = [speech.phrase(rng, held_out=False).words for _ in range(20000)]
        wording.learn([*corpus, *PROMPTS * 200], special=wording.SPEECH_SPECIAL, vocab_size=VOCAB).save(
            str(path)
        )
    return Tokenizer.from_file(str(path))


def train(options: argparse.Namespace, started_s: float) -> None:
    speech_data.ready()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    tokenizer = learn_words(options.out, resume=options.resume)
    model = shapes.speech_model(tokenizer).to(device)
    ear = nn.Linear(model.config.text_config.hidden_size, tokenizer.get_vocab_size() + 1).to(device)
    parts: dict[str, nn.Module] = {"model": model, "ear": ear}
    begin = loop.load(options.out, "speech", parts) if options.resume else 0
    rng = random.Random(f"speech:{options.seed}:{begin}")
    plan = loop.Plan(steps=options.steps, seconds=options.seconds, peak_rate=options.rate)
    optimiser = loop.optimiser([model, ear], rate=plan.peak_rate, cuda=device.type == "cuda")
    unheard = speech_data.held_out("watch", options.watch)
    feed = Feed(seed=f"{options.seed}+{begin}", workers=options.workers)
    pool = Pool(options.pool, device)
    while len(pool) < options.batch * 4:
        pool.add(feed.wait())
    mel = Mel(device)
    record = loop.Record(options.out / "speech.jsonl", started_s=started_s)
    step = begin
    while (done := plan.progress(step - begin, record.elapsed_s())) < 1:
        for clips in feed.ready():
            pool.add(clips)
        rate = plan.rate(step - begin, done)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found = forward(model, ear, pool.draw(rng, options.batch), tokenizer, mel, rng)
            loss = found["answer"] + options.ear * found["ear"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 10 == 0:
            for name, value in found.items():
                record.add(name, float(value.detach()))
        if step % options.report == 0:
            record.add("spoken", pool.added / max(1, options.batch * (step - begin)))
            record.add("held_out", exact(model, unheard, tokenizer, mel))
            record.write(step, rate)
        if step % options.keep == 0:
            keep(options.out, step, parts, tokenizer)
    record.add("held_out", exact(model, unheard, tokenizer, mel))
    record.write(step, 0.0)
    keep(options.out, step, parts, tokenizer)
    feed.close()


def keep(run: Path, step: int, parts: dict[str, nn.Module], tokenizer: Tokenizer) -> None:
    """The checkpoint, and the folder that ships: whatever ends the run, the latest is there."""
    loop.save(run, "speech", step, parts)
    model = parts["model"]
    assert isinstance(model, GlmAsrForConditionalGeneration)
    shapes.save_speech(model, tokenizer, run / "speech")


@torch.no_grad()
def exact(model: GlmAsrForConditionalGeneration, clips: Clips, tokenizer: Tokenizer, mel: Mel) -> float:
    """Share of held-out clips written down without a fault: what greedy decoding would give."""
    device = next(model.parameters()).device
    sound, _ = speech_data.dress(clips.to(device), tempo=0)
    picture = mel(sound, floor=speech_data.FLOORS[1])
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        scores, target, rows = answer(
            model, hear(model, picture), clips.words, speech_data.TOKENS, tokenizer, random.Random(0)
        )
    return float(faultless(scores.argmax(-1) == target, rows, len(clips.words)))


def faultless(right: Tensor, rows: Tensor, count: int) -> Tensor:
    """Share of `count` clips of which every answer token is right; `rows` says whose a token is."""
    wrong = torch.zeros(count, device=right.device).index_add_(0, rows, (~right).float())
    return (wrong == 0).float().mean()


def forward(
    model: GlmAsrForConditionalGeneration,
    ear: nn.Linear,
    clips: Clips,
    tokenizer: Tokenizer,
    mel: Mel,
    rng: random.Random,
) -> dict[str, Tensor]:
    device = clips.sound.device
    with torch.autocast(device.type, enabled=False):
        sound, heard = speech_data.dress(clips)
        colour = speech_data.colours(len(clips.words), device)
        picture = speech_data.masked(mel(sound, floor=rng.choice(speech_data.FLOORS), colour=colour))
    embeddings = hear(model, picture)
    kept = speech_data.audio_tokens(heard)
    # Trimmed rows share the longest row's count: a few embeddings of silence more than transformers.
    count = int(kept.max()) if rng.random() < 0.5 else speech_data.TOKENS
    scores, target, rows = answer(model, embeddings, clips.words, count, tokenizer, rng)
    right = scores.argmax(-1) == target
    return {
        "answer": functional.cross_entropy(scores, target),
        "ear": hearing_loss(ear(embeddings).float(), kept, clips.words, tokenizer),
        "token": right.float().mean(),
        "whole": faultless(right, rows, len(clips.words)),
    }


def hear(model: GlmAsrForConditionalGeneration, picture: Tensor) -> Tensor:
    """The audio embeddings of whole windows."""
    encoded = model.model.audio_tower(picture).last_hidden_state
    wide = model.config.audio_config.intermediate_size
    return cast("Tensor", model.model.multi_modal_projector(encoded.reshape(len(picture), -1, wide)))


def answer(
    model: GlmAsrForConditionalGeneration,
    embeddings: Tensor,
    words: Sequence[str],
    count: int,
    tokenizer: Tokenizer,
    rng: random.Random,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores of every answer token, what it should be, and the clip it belongs to."""
    tokens, label = (part.to(embeddings.device) for part in sequences(words, count, tokenizer, rng))
    embedded = model.model.language_model.embed_tokens(tokens)
    place = tokens == tokenizer.token_to_id("<|pad|>")
    embedded = embedded.to(embeddings.dtype).masked_scatter(place[..., None], embeddings[:, :count])
    hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    learnt = label[:, 1:] >= 0
    rows = torch.arange(len(words), device=embeddings.device)[:, None].expand_as(learnt)[learnt]
    return model.lm_head(hidden[:, :-1][learnt]).float(), label[:, 1:][learnt], rows


def sequences(
    words: Sequence[str], count: int, tokenizer: Tokenizer, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Prompt with `count` places for audio, then the words. Padding stands behind, where nothing looks at
    it.
    """
    opening = tokenizer.encode("<|user|>\n<|begin_of_audio|>").ids
    pad, end = tokenizer.token_to_id("<|pad|>"), tokenizer.token_to_id("<|user|>")
    rows = []
    for said in words:
        after = tokenizer.encode(f"<|end_of_audio|><|user|>\n{rng.choice(PROMPTS)}<|assistant|>\n").ids
        prompt = [*opening, *[pad] * count, *after]
        rows.append((prompt, [*tokenizer.encode(said).ids, end]))
    length = max(len(prompt) + len(reply) for prompt, reply in rows)
    length = -(-length // 16) * 16
    tokens = torch.full((len(words), length), tokenizer.token_to_id("<|endoftext|>"))
    label = torch.full((len(words), length), -100)
    for row, (prompt, reply) in enumerate(rows):
        tokens[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        label[row, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    return tokens, label


def hearing_loss(scores: Tensor, kept: Tensor, words: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """CTC on the audio embeddings, for training only: it teaches the ear before the answer is learned."""
    spoken = [tokenizer.encode(said).ids for said in words]
    targets = torch.tensor([token for ids in spoken for token in ids], device=scores.device)
    lengths = torch.tensor([len(ids) for ids in spoken], device=scores.device)
    blank = scores.shape[-1] - 1
    return functional.ctc_loss(
        scores.log_softmax(-1).transpose(0, 1), targets, kept, lengths, blank=blank, zero_infinity=True
    )


def main() -> None:
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="end the schedule after this time at the latest"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=6000, help="clips kept in memory")
    parser.add_argument("--watch", type=int, default=128, help="held-out clips to watch")
    parser.add_argument("--ear", type=float, default=0.5, help="weight of the auxiliary loss")
    parser.add_argument("--workers", type=int, default=max(1, os.sysconf("SC_NPROCESSORS_ONLN") // 3))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--report", type=int, default=100)
    parser.add_argument("--keep", type=int, default=2000)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    options.out.mkdir(parents=True, exist_ok=True)
    train(options, started_s)


if __name__ == "__main__":
    main()
