"""Spoken commands for the model that hears: clean clips from espeak-ng, kept in a pool, dressed anew for
every batch.

Owns the audio: what is said, resampling, silence, noise, volume, and the log-mel picture in both engines'
reading of it. Speaking is the slow part, so workers fill the pool while training draws from it; tempo,
colour, noise and place in the window are new each time, and drawn where the model is. Knows nothing of the
model.
"""

from __future__ import annotations

import math
import os
import queue
import random
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from autoglm_serve.demo import speech, words

from . import voices

RATE_HZ = 16000
WINDOW_S = 30
HOP = 160
N_FFT = 400
MEL_BINS = 80
FRAMES = WINDOW_S * RATE_HZ // HOP
TOKENS = FRAMES // 8
"""Audio embeddings of one window: two frames a position, four positions an embedding."""
LONGEST_S = 7.5
SOUND_S = 10
"""The part of the window that can hold sound; the rest is silence, and its mel picture is known without
looking.
"""
SALAD_SHARE = 0.2
"""Clips that say words in no order, so that the ear cannot be replaced by a memory for commands."""

QUIET_SHARE = 0.04
"""Clips in which nothing is said."""
BUNDLE = 16
"""Clips that travel together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    sound: np.ndarray
    """int16 at `speech.RATE_HZ`, loudest sample near full scale."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Several clips in one piece, as they travel from a worker and lie in the pool."""

    sound: Tensor
    """int16 [clips, samples at `speech.RATE_HZ`], silent behind the end."""
    lengths: Tensor
    words: tuple[str, ...]

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> Clips:
        sound = torch.zeros(len(clips), max(len(clip.sound) for clip in clips), dtype=torch.int16)
        for row, clip in enumerate(clips):
            sound[row, : len(clip.sound)] = torch.from_numpy(clip.sound)
        return cls(
            sound=sound,
            lengths=torch.tensor([len(clip.sound) for clip in clips]),
            words=tuple(clip.words for clip in clips),
        )

    def to(self, device: torch.device) -> Clips:
        return replace(self, sound=self.sound.to(device), lengths=self.lengths.to(device))


class Speaking(IterableDataset[Clip]):
    """An endless stream of clean clips: training's voices and phrases."""

    def __init__(self, *, seed: str) -> None:
        self._seed = seed

    def __iter__(self) -> Iterator[Clip]:
        info = get_worker_info()
        number, step = (info.id, info.num_workers) if info else (0, 1)
        with tempfile.TemporaryDirectory() as folder:
            voicebox = voices.Voicebox(Path(folder))
            while True:
                rng = random.Random(f"train:{self._seed}:{number}")
                number += step
                if rng.random() < QUIET_SHARE:
                    yield other_sound(rng)
                    continue
                said = salad(rng) if rng.random() < SALAD_SHARE else speech.phrase(rng, held_out=False)
                clip = spoken(voicebox, said, voices.manner(rng, said.language))
                if clip is not None:
                    yield clip


def spoken(voicebox: voices.Voicebox, said: speech.Phrase, how: voices.Manner) -> Clip | None:
    """Nothing where the clip is too long to train on, or silent."""
    sound = np.frombuffer(voicebox.say(said.words, how), np.int16).astype(np.float32)
    loudest = np.abs(sound).max(initial=0)
    if len(sound) > LONGEST_S * speech.RATE_HZ or loudest < 100:
        return None
    return Clip(sound=(sound * (32000 / loudest)).astype(np.int16), words=said.words)


def salad(rng: random.Random) -> speech.Phrase:
    """Words and halves of commands in any order; never a held-out command."""
    while True:
        language: speech.Language = rng.choice(("zh", "en"))
        pieces = []
        for _ in range(rng.choice((1, 2, 2, 3, 4))):
            if rng.random() < 0.6:
                pieces.append(rng.choice((*words.ALL, *words.TYPED, *words.COLOURS)).text(language).lower())
            else:
                source = rng.choice((*speech.TEMPLATES[language], *speech.PLAIN[language]))
                pieces.append(source.replace("{}", "").strip())
            if rng.random() < 0.1:  # said twice: what comes next must be heard, not remembered
                pieces.append(pieces[-1].split()[-1])
        text = " ".join(" ".join(pieces).split()) if language == "en" else "".join(pieces)
        if not speech.is_held_out(text):
            return speech.Phrase(language=language, words=text)


def held_out(seed: str, count: int) -> Clips:
    """Clips as the evaluation speaks them: its voices, its phrases."""
    rng = random.Random(f"held-out:{seed}")
    clips: list[Clip] = []
    with tempfile.TemporaryDirectory() as folder:
        voicebox = voices.Voicebox(Path(folder))
        while len(clips) < count:
            said = speech.phrase(rng, held_out=True)
            who = speech.speaker(rng, said.language, held_out=True)
            how = voices.Manner(
                voice=who.voice, variant=None, speed_wpm=who.speed_wpm, pitch=who.pitch, word_gap=0
            )
            clip = spoken(voicebox, said, how)
            clips += [clip] if clip is not None else []
    return Clips.of(clips)


class Feed:
    """Bundles of new clips from worker processes, as they come. Should a worker die, others take its place,
    with other clips.
    """

    def __init__(self, *, seed: str, workers: int) -> None:
        self._seed = seed
        self._workers = workers
        self._ready: queue.Queue[Clips | RuntimeError] = queue.Queue(maxsize=16)
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(self._start(0),), name="feed", daemon=True)
        self._thread.start()

    def wait(self) -> Clips:
        return self._unless_broken(self._ready.get(timeout=120))

    def ready(self) -> list[Clips]:
        """What has come since the last time: nothing, if the workers are behind."""
        return [self._unless_broken(self._ready.get_nowait()) for _ in range(self._ready.qsize())]

    def close(self) -> None:
        self._closed = True
        while self._thread.is_alive():
            self.ready()
            self._thread.join(0.1)

    def _start(self, attempt: int) -> Iterator[Clips]:
        loader = DataLoader(
            Speaking(seed=f"{self._seed}/{attempt}"),
            batch_size=BUNDLE,
            collate_fn=Clips.of,
            num_workers=self._workers,
        )
        return iter(loader)

    def _run(self, source: Iterator[Clips]) -> None:
        for attempt in range(1, 20):
            try:
                for clips in source:
                    self._ready.put(clips)
                    if self._closed:
                        return
            except RuntimeError as broken:
                print(f"a worker that speaks died and is replaced: {broken}", flush=True)
            source = self._start(attempt)
        self._ready.put(RuntimeError("the workers that speak die again and again; see above"))

    @staticmethod
    def _unless_broken(found: Clips | RuntimeError) -> Clips:
        if isinstance(found, RuntimeError):
            raise found
        return found


class Pool:
    """Clips to draw from, in the model's memory. A new clip takes an old one's place once it is full."""

    def __init__(self, size: int, device: torch.device) -> None:
        longest = int(LONGEST_S * speech.RATE_HZ)
        self._sound = torch.zeros(size, longest, dtype=torch.int16, device=device)
        self._lengths = torch.zeros(size, dtype=torch.long, device=device)
        self._words = [""] * size
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self._words))

    def add(self, clips: Clips) -> None:
        count, longest = clips.sound.shape
        places = torch.tensor([(self.added + n) % len(self._words) for n in range(count)])
        self.added += count
        at = places.to(self._sound.device)
        self._sound[at, :longest] = clips.sound.to(self._sound.device)
        self._lengths[at] = clips.lengths.to(self._sound.device)
        for place, text in zip(places.tolist(), clips.words, strict=True):
            self._words[place] = text

    def draw(self, rng: random.Random, count: int) -> Clips:
        places = [rng.randrange(len(self)) for _ in range(count)]
        at = torch.tensor(places, device=self._sound.device)
        return Clips(
            sound=self._sound[at],
            lengths=self._lengths[at],
            words=tuple(self._words[place] for place in places),
        )


def dress(clips: Clips, *, tempo: float = 0.1) -> tuple[Tensor, Tensor]:
    """Clips as they are heard: float at 16 kHz [clips, SOUND_S seconds], and each one's length in samples.

    Silence around, another tempo (and with it pitch and size of the throat) in half of them, a low-pass
    before resampling or none, as both are met; noise; volume.
    """
    device, count = clips.sound.device, len(clips.words)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, device=device).uniform_(low, high)

    sound = clips.sound.float() / 32768
    sound = torch.where(draw(0, 1) < 0.6, low_passed(sound), sound)
    faster = torch.where(draw(0, 1) < 0.5, draw(-tempo, tempo), torch.zeros(count, 1, device=device)).exp()
    ratio = speech.RATE_HZ / RATE_HZ * faster
    before = draw(0, 0.55 * RATE_HZ).floor()
    at = (torch.arange(SOUND_S * RATE_HZ, device=device)[None] - before) * ratio
    lengths = clips.lengths.to(device)[:, None]
    spoken_here = (at >= 0) & (at < lengths - 1)
    left = at.floor().long().clamp(min=0).minimum(lengths - 2)
    part = at - left
    sound = sound.gather(1, left) * (1 - part) + sound.gather(1, left + 1) * part
    heard = before + lengths / ratio + draw(0, 0.9 * RATE_HZ)
    heard = heard.clamp(max=SOUND_S * RATE_HZ).long()[:, 0]
    inside = torch.arange(sound.shape[1], device=device)[None] < heard[:, None]
    loud = torch.tensor((0.0, 0.0, 0.003, 0.01, 0.02, 0.05, 0.08), device=device)
    hiss = loud[torch.randint(len(loud), (count, 1), device=device)] * torch.randn_like(sound) * inside
    return ((sound * spoken_here + hiss) * draw(math.log(0.1), 0).exp()).clamp(-1, 1), heard


def low_passed(sound: Tensor) -> Tensor:
    """Without what 16 kHz cannot hold."""
    width = 31
    cut = 0.95 * RATE_HZ / speech.RATE_HZ
    kernel = np.sinc(cut * (np.arange(width) - width // 2)) * np.hamming(width)
    taps = torch.tensor(kernel / kernel.sum(), dtype=sound.dtype, device=sound.device)
    return functional.conv1d(sound[:, None], taps[None, None], padding=width // 2)[:, 0]


def other_sound(rng: random.Random) -> Clip:
    """Silence, a hum or a tune: nothing to write down."""
    seconds = rng.uniform(0.3, 6)
    at = np.arange(int(seconds * speech.RATE_HZ)) / speech.RATE_HZ
    sound = np.zeros_like(at)
    if rng.random() < 0.7:
        for _ in range(rng.randrange(1, 12)):
            start, long = rng.uniform(0, seconds), rng.uniform(0.1, 1.0)
            envelope = np.clip(1 - np.abs(at - start - long / 2) / (long / 2), 0, 1)
            pitch = 110 * 2 ** (rng.randrange(0, 48) / 12)
            for overtone in range(1, rng.randrange(2, 6)):
                sound += envelope * np.sin(2 * np.pi * pitch * overtone * at) / overtone
        sound *= 32000 / max(1.0, np.abs(sound).max())
    return Clip(sound=sound.clip(-32000, 32000).astype(np.int16), words="")


class Mel:
    """Whisper's log-mel picture, on any device, with either engine's floor under the logarithm."""

    def __init__(self, device: torch.device) -> None:
        from transformers import WhisperFeatureExtractor

        filters = WhisperFeatureExtractor(feature_size=MEL_BINS).mel_filters
        self._filters = torch.from_numpy(np.asarray(filters, np.float32)).to(device)
        self._window = torch.hann_window(N_FFT, device=device)

    def __call__(self, sound: Tensor, *, floor: float = 1e-10, colour: Tensor | None = None) -> Tensor:
        """float [clips, samples of the first seconds] → [clips, bins, frames of the whole window]; `colour`
        is a gain for every frequency of every clip.
        """
        spectrum = torch.stft(sound, N_FFT, HOP, window=self._window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        if colour is not None:
            power = power * colour[..., None]
        log = (self._filters.T @ power).clamp(min=floor).log10()
        log = functional.pad(log, (0, FRAMES - log.shape[-1]), value=math.log10(floor))
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8)
        return (log + 4) / 4


def colours(count: int, device: torch.device) -> Tensor:
    """Microphones and rooms: a smooth gain in power over the frequencies, for half of the clips."""
    place = torch.linspace(0, 1, N_FFT // 2 + 1, device=device)[None]
    decibels = torch.zeros(count, place.shape[1], device=device)
    for wave, spread in ((1, 5.0), (2, 3.0), (3, 2.0), (5, 1.5)):
        shift = torch.rand(count, 1, device=device)
        decibels += (
            spread * torch.randn(count, 1, device=device) * torch.cos(math.pi * (wave * place + shift))
        )
    decibels *= torch.rand(count, 1, device=device) < 0.5
    return torch.pow(10.0, decibels / 10)


def masked(picture: Tensor) -> Tensor:
    """The mel picture with a few bins and moments missing, in half of the clips."""
    count, bins, _ = picture.shape
    device = picture.device
    heard = SOUND_S * RATE_HZ // HOP

    def span(size: int, widest: int) -> Tensor:
        start = torch.randint(size, (count, 1), device=device)
        wide = torch.randint(widest, (count, 1), device=device)
        wide = wide * (torch.rand(count, 1, device=device) < 0.5)
        place = torch.arange(size, device=device)[None]
        return (place >= start) & (place < start + wide)

    lowest = picture.amin((1, 2), keepdim=True)
    hidden = (
        span(bins, 12)[:, :, None]
        | functional.pad(span(heard, 8) | span(heard, 8) | span(heard, 8), (0, picture.shape[2] - heard))[
            :, None
        ]
    )
    return torch.where(hidden, lowest, picture)


FLOORS = (1e-10, 5.96e-8)
"""transformers' and llama.cpp's."""


def audio_tokens(heard: Tensor) -> Tensor:
    """Embeddings that transformers keeps for so many samples: it trims the padding, llama.cpp does not."""
    frames = heard // HOP
    positions = (frames - 1) // 2 + 1
    return ((positions - 4) // 4 + 1).clamp(min=1, max=TOKENS)


def ready() -> None:
    """Stop early, with a word on what to do, where espeak-ng is missing."""
    if not speech.available():
        raise SystemExit(
            "espeak-ng is not on the PATH, and the speech model is trained on what it says. Install it "
            f"(Debian: apt-get install espeak-ng) and start again. PATH is {os.environ.get('PATH')}"
        )
