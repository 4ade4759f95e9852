"""System prompts of any length and wording, of which some are kept from training."""

from __future__ import annotations

import random

import pytest

from autoglm_serve.demo import prompts
from autoglm_serve.demo.words import Language


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("characters", [200, 3000, 12000])
def test_a_prompt_has_about_the_wanted_length(language: Language, characters: int) -> None:
    text = prompts.system_prompt(random.Random(1), characters=characters, language=language)
    assert 0.8 * characters < len(text) < 1.2 * characters + 200


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_frame_is_both_trained_on_and_held_out(language: Language) -> None:
    frames = prompts.FRAMES[language]
    trained = {prompts.Writer(random.Random(n), language).one(frames) for n in range(400)}
    kept = {prompts.Writer(random.Random(n), language, held_out=True).one(frames) for n in range(400)}
    assert trained.isdisjoint(kept)
    assert trained | kept == set(frames)
