"""Counters count exactly, and outlive whoever counted."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm_serve.observe import counter_file
from autoglm_serve.observe.counter_file import CounterFile

KEYS = st.tuples(st.sampled_from(["requests", "tokens"]), st.text(st.characters(codec="utf-8"), max_size=9))
KEYS = KEYS.filter(lambda key: "\0" not in key[1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), KEYS, st.integers(1, 10**6), st.booleans()), max_size=30))
def test_the_sum_of_all_boards_is_exact_though_they_are_closed_and_opened(
    tmp_path: Path, adds: list[tuple[int, counter_file.Key, int, bool]]
) -> None:
    paths = [tmp_path / f"counters-{index}" for index in range(3)]
    for path in paths:
        path.unlink(missing_ok=True)
    files = [CounterFile(path) for path in paths]
    expected: dict[counter_file.Key, int] = {}
    for index, key, amount, reopen in adds:
        files[index].add(key, amount)
        expected[key] = expected.get(key, 0) + amount
        if reopen:
            files[index].close()
            files[index] = CounterFile(paths[index])
        assert counter_file.read(paths) == expected
    for each in files:
        each.close()


def test_observations_are_counted_in_their_bucket_and_summed(tmp_path: Path) -> None:
    counts = CounterFile(tmp_path / "counters")
    for value in (0.0, 0.1, 0.11, 5.0):
        counts.observe(("ttft", "m"), value, (0.1, 1.0))
    assert counter_file.read([tmp_path / "counters"]) == {
        ("ttft", "m", "0"): 2,
        ("ttft", "m", "1"): 1,
        ("ttft", "m", "2"): 1,
        ("ttft", "m", "sum"): 5_210_000,
    }


def test_a_full_board_drops_new_keys_and_counts_old_ones_on(tmp_path: Path) -> None:
    counts = CounterFile(tmp_path / "counters")
    counts.add(("old",))
    for number in range(300):
        counts.add(("new", "x" * 5000, str(number)))
    counts.add(("old",))
    seen = counter_file.read([tmp_path / "counters"])
    assert seen[("old",)] == 2
    assert 150 < len(seen) < 300


def test_a_board_that_is_not_there_counts_nothing(tmp_path: Path) -> None:
    assert counter_file.read([tmp_path / "none"]) == {}


@pytest.mark.parametrize("length", [-16, 2**40, 2**20 - 24])
def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path, length: int) -> None:
    """A power cut may keep one page of a file and lose another."""
    path = tmp_path / "counters"
    counters = CounterFile(path)
    counters.add(("requests", "m", "/", "ok"), 3)
    good = counter_file.read([path])
    counters.close()
    data = bytearray(path.read_bytes())
    (used,) = struct.unpack_from("=q", data, 0)
    struct.pack_into("=q", data, 0, 2**40)
    struct.pack_into("=q", data, used, length)
    path.write_bytes(data)
    assert counter_file.read([path]).items() >= good.items()
    CounterFile(path).close()
