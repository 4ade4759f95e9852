"""Spoken commands for the model that hears: clean clips from espeak-ng, kept in a pool, dressed anew for
every batch.

Owns the audio: resampling, silence, noise, volume, and the log-mel picture in both engines' reading of it.
Speaking is the slow part, so workers fill the pool while training draws from it again and again; noise,
gain and place in the window are new each time. Knows nothing of the model.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import IterableDataset, get_worker_info

from autoglm_serve.demo import speech

RATE_HZ = 16000
WINDOW_S = 30
HOP = 160
N_FFT = 400
MEL_BINS = 80
FRAMES = WINDOW_S * RATE_HZ // HOP
TOKENS = FRAMES // 8
"""Audio embeddings of one window: two frames a position, four positions an embedding."""
LONGEST_S = 8.0
SOUND_S = 10
"""The part of the window that can hold sound; the rest is silence, and its mel picture is known without
looking.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    sound: np.ndarray
    """int16 at 16 kHz, loudest sample near full scale."""
    words: str


class Clips(IterableDataset[Clip]):
    """An endless stream of clean clips from the training voices and phrases."""

    def __init__(self, *, seed: str, held_out: bool = False) -> None:
        self._seed = seed
        self._held_out = held_out

    def __iter__(self) -> Iterator[Clip]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = worker
        while True:
            clip = self.clip(number)
            if clip is not None:
                yield clip
            number += workers

    def clip(self, number: int) -> Clip | None:
        rng = random.Random(f"{'held-out' if self._held_out else 'train'}:{self._seed}:{number}")
        said = speech.phrase(rng, held_out=self._held_out)
        who = speech.speaker(rng, said.language, held_out=self._held_out)
        sound = np.frombuffer(speech.samples(speech.espeak(said, who)).tobytes(), np.int16).astype(np.float32)
        sound = resample(sound, speech.RATE_HZ, RATE_HZ, smooth=rng.random() < 0.6)
        if len(sound) > LONGEST_S * RATE_HZ or not len(sound):
            return None
        return Clip(
            sound=(sound * (32000 / max(1.0, np.abs(sound).max()))).astype(np.int16), words=said.words
        )


def resample(sound: np.ndarray, source_hz: int, target_hz: int, *, smooth: bool) -> np.ndarray:
    """With a low-pass before it, or plainly linear: both are met in practice."""
    if smooth:
        width = 31
        cut = 0.95 * target_hz / source_hz
        at = np.arange(width) - width // 2
        kernel = np.sinc(cut * at) * np.hamming(width)
        sound = np.convolve(sound, kernel / kernel.sum(), "same")
    places = np.arange(int(len(sound) * target_hz / source_hz)) * (source_hz / target_hz)
    return np.interp(places, np.arange(len(sound)), sound)


def dress(clips: list[Clip], rng: random.Random, device: torch.device) -> tuple[Tensor, Tensor]:
    """Clips as they are heard: float [clips, SOUND_S seconds], and each one's length in samples."""
    window = np.zeros((len(clips), SOUND_S * RATE_HZ), np.int16)
    heard, gain, noise = [], [], []
    for row, clip in enumerate(clips):
        before = rng.randrange(RATE_HZ // 2)
        window[row, before : before + len(clip.sound)] = clip.sound
        heard.append(before + len(clip.sound) + rng.randrange(RATE_HZ // 2))
        gain.append([rng.uniform(0.2, 1.0)])
        noise.append([rng.choice((0.0, 0.0, 0.003, 0.01, 0.02, 0.05, 0.08))])
    sound = torch.from_numpy(window).to(device).float() / 32768
    lengths = torch.tensor(heard, device=device)
    inside = torch.arange(sound.shape[1], device=device)[None] < lengths[:, None]
    hiss = torch.tensor(noise, device=device) * torch.randn_like(sound) * inside
    return ((sound + hiss) * torch.tensor(gain, device=device)).clamp(-1, 1), lengths


def other_sound(rng: random.Random) -> Clip:
    """Silence, a hum or a tune: nothing to write down."""
    seconds = rng.uniform(0.3, 6)
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
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

    def __call__(self, sound: Tensor, *, floor: float = 1e-10) -> Tensor:
        """float [clips, samples of the first seconds] → [clips, bins, frames of the whole window]."""
        spectrum = torch.stft(sound, N_FFT, HOP, window=self._window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        log = (self._filters.T @ power).clamp(min=floor).log10()
        log = functional.pad(log, (0, FRAMES - log.shape[-1]), value=math.log10(floor))
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8)
        return (log + 4) / 4


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
