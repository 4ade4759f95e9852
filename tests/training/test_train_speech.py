"""What the model that hears is taught, and that its marks are honest."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="training needs numpy")
torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

shapes, speech_data, train_speech, wording = (
    importlib.import_module(f"training.{name}")
    for name in ("shapes", "speech_data", "train_speech", "tokenizer")
)
WORDS = ("tap ok", "点击微信", "")


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return wording.learn(WORDS, special=wording.SPEECH_SPECIAL, vocab_size=train_speech.VOCAB)


def test_only_the_transcript_and_its_end_are_learned(tokenizer) -> None:
    tokens, label = train_speech.sequences(WORDS, 7, tokenizer, random.Random(0))
    end = tokenizer.token_to_id("<|user|>")
    for row, said in enumerate(WORDS):
        learnt = label[row][label[row] >= 0].tolist()
        assert learnt == [*tokenizer.encode(said).ids, end]
        assert tokens[row][label[row] >= 0].tolist() == learnt
        assert (tokens[row] == tokenizer.token_to_id("<|pad|>")).sum() == 7


def test_a_step_moves_the_whole_model(tokenizer) -> None:
    torch.manual_seed(0)
    model = shapes.speech_model(tokenizer)
    ear = torch.nn.Linear(model.config.text_config.hidden_size, tokenizer.get_vocab_size() + 1)
    sound = np.sin(np.arange(20000) / 9) * 30000
    clips = speech_data.Clips.of(
        [speech_data.Clip(sound=sound.astype(np.int16), words=said) for said in WORDS[:2]]
    )
    mel = speech_data.Mel(torch.device("cpu"))
    found = train_speech.forward(model, ear, clips, tokenizer, mel, random.Random(0))
    (found["answer"] + found["ear"]).backward()
    still = [name for name, part in model.named_parameters() if part.requires_grad and part.grad is None]
    assert not still
    assert 0 <= train_speech.exact(model, clips, tokenizer, mel) <= 1


def test_the_folder_that_ships_is_written_with_every_checkpoint(tokenizer, tmp_path: Path) -> None:
    model = shapes.speech_model(tokenizer)
    ear = torch.nn.Linear(2, 2)
    train_speech.keep(tmp_path, 5, {"model": model, "ear": ear}, tokenizer)
    assert (tmp_path / "speech" / "model.safetensors").exists()
    fresh = shapes.speech_model(tokenizer)
    assert train_speech.loop.load(tmp_path, "speech", {"model": fresh, "ear": ear}) == 5
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
