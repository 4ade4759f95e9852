"""A small storm in every run; the long one is `python -m benchmarks.chaos`, which also replays a seed."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from benchmarks.chaos.alone import Trial, external_trials
from benchmarks.chaos.schedule import EMBEDDED, SERVICE, SWITCHED, schedule
from benchmarks.chaos.storm import run_one
from tests.process.service_process import running_service

pytestmark = pytest.mark.process


def test_a_seed_gives_the_same_schedule_for_ever() -> None:
    assert schedule(7, 60, 1, SWITCHED) == schedule(7, 60, 1, SWITCHED)
    assert schedule(7, 60, 1, SWITCHED) != schedule(8, 60, 1, SWITCHED)


def test_every_kind_of_blow_comes_before_any_comes_twice() -> None:
    kinds = (*set(EMBEDDED), *SERVICE)
    first = [blow.kind for blow in schedule(7, 60, 1, kinds)[: len(kinds)]]
    assert sorted(first) == sorted(kinds)


@pytest.mark.parametrize(("arena", "seed"), [("switched", 1), ("embedded", 2)])
def test_whatever_breaks_each_request_has_one_outcome_and_nothing_is_left(arena: str, seed: int) -> None:
    report = run_one(arena, seed=seed, duration_s=7, every_s=0.5, clients=6)
    again = f"python -m benchmarks.chaos storm --arena {arena} --seed {seed} --minutes 0.117 --every-s 0.5"
    assert not report.complaints, "\n".join([*report.lines(), f"again: {again} --clients 6"])
    assert report.books.outcomes["ok"] > 10


def test_nobody_is_lost_where_the_only_address_pauses_or_is_away_and_comes_back() -> None:
    async def trials() -> list[Trial]:
        return [trial async for trial in external_trials(20, [6.0], [0.3, 4.0])]

    for trial in asyncio.run(trials()):
        assert trial.lost == 0, "\n".join((trial.line(), *trial.wrong))


def test_it_serves_and_restarts_replicas_while_the_disk_has_no_room_for_logs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    full = f"mount -t tmpfs -o size=16k none {logs} && head -c 20000 /dev/zero > {logs}/filler; "
    inside = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", full + 'exec "$@"', "sh")
    if subprocess.run((*inside, "true"), capture_output=True, check=False).returncode:
        pytest.skip("no file system of one's own can be mounted here")
    with running_service("--replicas", "2", "--no-speech", state_dir=tmp_path, inside=inside) as service:
        replicas = service.wait_for_replicas(lambda each: all(one["state"] == "ready" for one in each))
        os.kill(replicas[0]["pid"], signal.SIGKILL)
        assert service.chat()[0] == 200
        service.wait_for_replicas(
            lambda each: each[0]["restarts"] == 1 and all(one["state"] == "ready" for one in each)
        )
        assert service.chat()[0] == 200
