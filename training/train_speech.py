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
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import GlmAsrForConditionalGeneration

from autoglm_serve.demo import speech

from . import loop, shapes, speech_data
from . import tokenizer as wording
from .speech_data import Clip, Clips, Mel

VOCAB = 896
PROMPTS = (shapes.TRANSCRIBE, "Transcribe audio to text", "")
"""The processor's prompt, llama.cpp's, and none."""
QUIET_SHARE = 0.04


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


def train(options: argparse.Namespace) -> None:
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
    feed = iter(
        DataLoader(Clips(seed=f"{options.seed}+{begin}"), batch_size=None, num_workers=options.workers)
    )
    pool: list[Clip] = [next(feed) for _ in range(options.batch * 8)]
    mel = Mel(device)
    record = loop.Record(options.out / "speech.jsonl")
    step = begin
    while (done := plan.progress(step - begin, record.elapsed_s())) < 1:
        for _ in range(options.fresh):
            clip = next(feed)
            if len(pool) < options.pool:
                pool.append(clip)
            else:
                pool[rng.randrange(len(pool))] = clip
        rate = plan.rate(step - begin, done)
        for group in optimiser.param_groups:
            group["lr"] = rate
        clips = [
            speech_data.other_sound(rng) if rng.random() < QUIET_SHARE else rng.choice(pool)
            for _ in range(options.batch)
        ]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found = forward(model, ear, clips, tokenizer, mel, rng, device)
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
            record.write(step, rate)
        if step % options.keep == 0:
            loop.save(options.out, "speech", step, parts)
    record.write(step, 0.0)
    loop.save(options.out, "speech", step, parts)
    shapes.save_speech(model.cpu(), tokenizer, options.out / "speech")


def forward(
    model: GlmAsrForConditionalGeneration,
    ear: nn.Linear,
    clips: list[Clip],
    tokenizer: Tokenizer,
    mel: Mel,
    rng: random.Random,
    device: torch.device,
) -> dict[str, Tensor]:
    sound, heard = speech_data.dress(clips, rng, device)
    with torch.autocast(device.type, enabled=False):
        picture = mel(sound, floor=rng.choice(speech_data.FLOORS))
    encoded = model.model.audio_tower(picture).last_hidden_state
    wide = model.config.audio_config.intermediate_size
    embeddings = model.model.multi_modal_projector(encoded.reshape(len(clips), -1, wide))
    kept = speech_data.audio_tokens(heard)
    trimmed = rng.random() < 0.5
    count = int(kept.max()) if trimmed else speech_data.TOKENS
    # Trimmed rows share the longest row's count: a few embeddings of silence more than transformers.
    tokens, label = sequences(clips, count, tokenizer, rng, device)
    embedded = model.model.language_model.embed_tokens(tokens)
    place = tokens == tokenizer.token_to_id("<|pad|>")
    embedded = embedded.to(embeddings.dtype).masked_scatter(place[..., None], embeddings[:, :count])
    hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    learnt = label[:, 1:] >= 0
    target = label[:, 1:][learnt]
    scores = model.lm_head(hidden[:, :-1][learnt]).float()
    right = scores.argmax(-1) == target
    rows = torch.arange(len(clips), device=device)[:, None].expand_as(learnt)[learnt]
    wrong = torch.zeros(len(clips), device=device).index_add_(0, rows, (~right).float())
    return {
        "answer": functional.cross_entropy(scores, target),
        "ear": hearing_loss(ear(embeddings).float(), kept, clips, tokenizer),
        "token": right.float().mean(),
        "whole": (wrong == 0).float().mean(),
    }


def sequences(
    clips: list[Clip], count: int, tokenizer: Tokenizer, rng: random.Random, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Prompt with `count` places for audio, then the words. Padding stands behind, where nothing looks at
    it.
    """
    opening = tokenizer.encode("<|user|>\n<|begin_of_audio|>").ids
    pad, end = tokenizer.token_to_id("<|pad|>"), tokenizer.token_to_id("<|user|>")
    rows = []
    for clip in clips:
        after = tokenizer.encode(f"<|end_of_audio|><|user|>\n{rng.choice(PROMPTS)}<|assistant|>\n").ids
        prompt = [*opening, *[pad] * count, *after]
        rows.append((prompt, [*tokenizer.encode(clip.words).ids, end]))
    length = max(len(prompt) + len(reply) for prompt, reply in rows)
    length = -(-length // 16) * 16
    tokens = torch.full((len(clips), length), tokenizer.token_to_id("<|endoftext|>"))
    label = torch.full((len(clips), length), -100)
    for row, (prompt, reply) in enumerate(rows):
        tokens[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        label[row, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    return tokens.to(device), label.to(device)


def hearing_loss(scores: Tensor, kept: Tensor, clips: list[Clip], tokenizer: Tokenizer) -> Tensor:
    """CTC on the audio embeddings, for training only: it teaches the ear before the answer is learned."""
    spoken = [tokenizer.encode(clip.words).ids for clip in clips]
    targets = torch.tensor([token for ids in spoken for token in ids], device=scores.device)
    lengths = torch.tensor([len(ids) for ids in spoken], device=scores.device)
    blank = scores.shape[-1] - 1
    return functional.ctc_loss(
        scores.log_softmax(-1).transpose(0, 1), targets, kept, lengths, blank=blank, zero_infinity=True
    )


def main() -> None:
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
    parser.add_argument("--pool", type=int, default=30000, help="clips kept in memory")
    parser.add_argument("--fresh", type=int, default=12, help="new clips a step")
    parser.add_argument("--ear", type=float, default=0.5, help="weight of the auxiliary loss")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 3))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--report", type=int, default=100)
    parser.add_argument("--keep", type=int, default=2000)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)


if __name__ == "__main__":
    main()
