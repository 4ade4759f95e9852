"""What fuzzing has found, and what it begins with, read again in every run; and a second of new inputs."""

import random

import pytest

from tests.fuzz.__main__ import corpus_of, fault_of
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_is_read_or_refused(name: str) -> None:
    assert [fault for data in corpus_of(name) if (fault := fault_of(TARGETS[name], data))] == []


@pytest.mark.parametrize("name", TARGETS)
def test_changes_to_it_are_read_or_refused(name: str) -> None:
    dice, seeds = random.Random(20), corpus_of(name)
    for _ in range(60):
        data = mutated(dice.choice(seeds), seeds, dice)
        assert fault_of(TARGETS[name], data) == "", data
