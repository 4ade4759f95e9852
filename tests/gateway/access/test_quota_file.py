"""Limits that several workers share: exact, and there after all of them."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.gateway.access.quota_file import Hold, QuotaFile, RowBusy
from autoglm_serve.keys.key import Key, Limits, digest
from autoglm_serve.keys.quota import Denied

NOW_S = 1_700_000_000
WORKERS = 4


def key(id: str = "k", **limits: int) -> Key:
    return Key(id=id, sha256=digest(id.encode()), limits=Limits(**limits))


def _ask(folder: Path, worker_id: int, asked: Key, requests: int, go: Any, told: Any) -> None:
    file, let_in = QuotaFile(folder, worker_id, WORKERS), 0
    go.wait()
    while requests:
        try:
            let_in += isinstance(file.take(asked, 7, NOW_S), Hold)
        except RowBusy:
            continue
        requests -= 1
    told.put(let_in)


@pytest.mark.process
@pytest.mark.parametrize(
    ("limits", "let_in"),
    [
        ({"requests_per_minute": 500}, 500),
        ({"requests_per_day": 333}, 333),
        ({"tokens_per_minute": 700}, 100),
        ({"budget_tokens": 69}, 9),
        ({"concurrency": 50}, 50),
    ],
)
def test_workers_together_let_in_exactly_what_the_limit_says(
    tmp_path: Path, limits: dict[str, int], let_in: int
) -> None:
    context = multiprocessing.get_context("spawn")
    go, told = context.Event(), context.Queue()
    workers = [
        context.Process(target=_ask, args=(tmp_path, worker, key("k", **limits), 400, go, told))
        for worker in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    go.set()
    counts = [told.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(counts) == let_in


def test_what_was_spent_is_there_after_a_restart(tmp_path: Path) -> None:
    asked = key(requests_per_day=2)
    for _ in range(2):
        assert isinstance(QuotaFile(tmp_path, 0, 2).take(asked, 1, NOW_S), Hold)
    assert isinstance(QuotaFile(tmp_path, 1, 2).take(asked, 1, NOW_S), Denied)


def test_what_was_in_flight_in_a_worker_that_died_is_not(tmp_path: Path) -> None:
    asked = key(concurrency=1)
    assert isinstance(QuotaFile(tmp_path, 0, 2).take(asked, 1, NOW_S), Hold)
    assert isinstance(QuotaFile(tmp_path, 1, 2).take(asked, 1, NOW_S), Denied)
    assert isinstance(QuotaFile(tmp_path, 0, 2).take(asked, 1, NOW_S), Hold)  # its successor


def test_keys_do_not_share_a_row(tmp_path: Path) -> None:
    file = QuotaFile(tmp_path, 0, 1)
    for number in range(2000):
        asked = key(f"k-{number}", requests_per_day=1)
        assert isinstance(file.take(asked, 1, NOW_S), Hold)
        assert isinstance(file.take(asked, 1, NOW_S), Denied)


def test_a_request_that_is_over_makes_room_for_another(tmp_path: Path) -> None:
    file, asked = QuotaFile(tmp_path, 0, 1), key(concurrency=1, tokens_per_minute=13)
    for _ in range(5):
        hold = file.take(asked, 9, NOW_S)
        assert isinstance(hold, Hold)
        file.settle(asked, hold, 1)
    assert isinstance(file.take(asked, 9, NOW_S), Denied)


@pytest.mark.process
def test_a_worker_that_stops_with_a_row_in_its_hands_stops_nobody_elses_loop(tmp_path: Path) -> None:
    file, asked = QuotaFile(tmp_path, 0, 2), key(requests_per_day=9)
    child = os.fork()
    if child == 0:
        other = QuotaFile(tmp_path, 1, 2)
        other._lock(other._row_of(asked.id))
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    begun_s = time.monotonic()
    with pytest.raises(RowBusy):
        file.take(asked, 1, NOW_S)
    assert time.monotonic() - begun_s < 0.5
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert isinstance(file.take(asked, 1, NOW_S), Hold)


def test_what_was_settled_counts_for_the_others_once_it_is_flushed(tmp_path: Path) -> None:
    one, other, asked = QuotaFile(tmp_path, 0, 2), QuotaFile(tmp_path, 1, 2), key(tokens_per_minute=10)
    hold = one.take(asked, 10, NOW_S)
    assert isinstance(hold, Hold)
    one.settle(asked, hold, 1)
    assert isinstance(other.take(asked, 9, NOW_S), Denied)
    one.flush()
    assert isinstance(other.take(asked, 9, NOW_S), Hold)


def test_a_file_for_fewer_workers_grows(tmp_path: Path) -> None:
    first = QuotaFile(tmp_path, 0, 1)
    last = QuotaFile(tmp_path, 7, 8)
    asked = key(concurrency=2)
    assert isinstance(last.take(asked, 1, NOW_S), Hold)
    assert isinstance(first.take(asked, 1, NOW_S), Hold)
    assert isinstance(last.take(asked, 1, NOW_S), Denied)
