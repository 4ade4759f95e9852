"""The training audio is what both engines hear, and never what the evaluation plays."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

from autoglm_serve.demo import speech

np = pytest.importorskip("numpy", reason="training needs numpy")
torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

shapes, speech_data, voices = (
    importlib.import_module(f"training.{name}") for name in ("shapes", "speech_data", "voices")
)
needs_espeak = pytest.mark.skipif(not speech.available(), reason="training speaks with espeak-ng")


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
    phrases |= {speech_data.salad(rng).words for _ in range(5000)}
    heard_out = {speech.phrase(rng, held_out=True).words for _ in range(1000)}
    assert phrases.isdisjoint(heard_out)
    spoken = {voices.manner(rng, language).voice for language in ("zh", "en") for _ in range(2000)}
    kept = {
        speech.speaker(rng, language, held_out=True).voice for language in ("zh", "en") for _ in range(2000)
    }
    assert spoken.isdisjoint(kept)


def test_every_invented_voice_is_another_and_comes_from_the_seed() -> None:
    made = [voices.invent(random.Random(number)) for number in range(100)]
    assert len(set(made)) == 100
    assert made[7] == voices.invent(random.Random(7))


def clips(*seconds: float) -> object:
    """Tones, so that what is dressed can be told from silence."""
    sounds = [np.sin(np.arange(int(long * speech.RATE_HZ)) / 5) for long in seconds]
    return speech_data.Clips.of(
        [speech_data.Clip(sound=(32000 * sound).astype(np.int16), words="tap ok") for sound in sounds]
    )


def test_dressed_clips_lie_whole_inside_the_window() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        sound, heard = speech_data.dress(clips(0.5, speech_data.LONGEST_S))
        assert sound.shape == (2, speech_data.SOUND_S * speech_data.RATE_HZ)
        assert (heard <= sound.shape[1]).all()
        for row, long in enumerate((0.5, speech_data.LONGEST_S)):
            assert heard[row] >= 0.9 * long * speech_data.RATE_HZ
            assert (sound[row, heard[row] :] == 0).all()
            loud = (sound[row].abs() > 0.5 * sound[row].abs().max()).float().sum()
            assert loud > 0.4 * 0.9 * long * speech_data.RATE_HZ


def test_a_full_pool_forgets_its_oldest_clips() -> None:
    pool = speech_data.Pool(4, torch.device("cpu"))
    for name in ("a", "b", "c"):
        sound = np.ones(1000, np.int16)
        pool.add(speech_data.Clips.of([speech_data.Clip(sound=sound, words=name)] * 2))
    drawn = pool.draw(random.Random(0), 50)
    assert set(drawn.words) == {"b", "c"}
    assert (drawn.sound.sum(1) == 1000).all()


@needs_espeak
def test_a_voicebox_speaks_with_invented_voices_and_known_ones(tmp_path: Path) -> None:
    box = voices.Voicebox(tmp_path)
    rng = random.Random(1)
    heard = {
        box.say("点击微信", voices.manner(rng, "zh", invented=share))
        for share in (0.0, 1.0)
        for _ in range(3)
    }
    assert len(heard) == 6
    assert all(len(sound) > speech.RATE_HZ // 2 for sound in heard)
