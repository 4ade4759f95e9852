"""The training audio is what both engines hear, and never what the evaluation plays."""

from __future__ import annotations

import importlib
import random

import pytest

from autoglm_serve.demo import speech

np = pytest.importorskip("numpy", reason="training needs numpy")
torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

shapes, speech_data = (importlib.import_module(f"training.{name}") for name in ("shapes", "speech_data"))


def test_the_mel_picture_is_the_feature_extractors() -> None:
    sound = (
        np.random.default_rng(0).normal(0, 0.1, speech_data.SOUND_S * speech_data.RATE_HZ).astype(np.float32)
    )
    sound[50000:] = 0
    theirs = shapes.WhisperFeatureExtractor(feature_size=80)(sound, sampling_rate=16000, return_tensors="pt")
    ours = speech_data.Mel(torch.device("cpu"))(torch.from_numpy(sound)[None])
    torch.testing.assert_close(ours, theirs["input_features"], atol=2e-3, rtol=1e-3)


def test_no_held_out_phrase_or_voice_is_trained_on() -> None:
    rng = random.Random(0)
    phrases = {speech.phrase(rng, held_out=False).words for _ in range(5000)}
    heard_out = {speech.phrase(rng, held_out=True).words for _ in range(1000)}
    assert phrases.isdisjoint(heard_out)
    trained = {
        speech.speaker(rng, language, held_out=False).voice for language in ("zh", "en") for _ in range(2000)
    }
    kept = {
        speech.speaker(rng, language, held_out=True).voice for language in ("zh", "en") for _ in range(2000)
    }
    assert trained.isdisjoint(kept)
