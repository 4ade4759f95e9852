"""The wall clock may jump by years: nothing here decides by it but what is of a day by its nature: when a key
expires, which day a quota or a bill is of."""

import ast
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.clients import asking
from tests.process.service_process import running_service
from tests.process.test_service import all_ready

SOURCE = Path(__file__).resolve().parents[2] / "src" / "autoglm_serve"
_WALL = frozenset({"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "ctime"})
_MODULES = frozenset({"time", "datetime", "date"})
ALLOWED = {
    ("run.py", "time.time"),  # what /v1/models tells as the time of creation
    ("exchange.py", "time.time"),  # and what the events of /v1/responses tell
    ("serve.py", "datetime.now"),  # and what Ollama's answers tell
    *(
        ("keys.py", read) for read in ("time.time", "datetime.now")
    ),  # when a key was made, until when it is good
    ("keyring.py", "time.time"),  # whether it still is
    ("grants.py", "time.time"),  # the day of a quota
    ("daybook.py", "time.time_ns"),  # the day of a bill
    ("usage.py", "datetime.now"),  # the days that a person asks for
    ("look.py", "time.time"),  # another machine's clock against ours
    *(("logs.py", f"time.{zone}time") for zone in ("local", "gm")),  # when a line was written
}

JUMPING = """
import itertools, time
years = itertools.cycle((40, -40, 1, -1))
real = time.time
time.time = lambda: real() + next(years) * 31_536_000.0
time.time_ns = lambda: int(time.time() * 1e9)
"""


def wall_clock_reads(path: Path) -> Iterator[str]:
    """Every place of a file that asks for the time of day."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MODULES and name in _WALL:
                yield f"{module}.{name}"
            case ast.ImportFrom(module="time", names=names):
                yield from (f"time.{each.name}" for each in names if each.name in _WALL)


def test_no_decision_reads_the_time_of_day() -> None:
    found = {(path.name, read) for path in SOURCE.rglob("*.py") for read in wall_clock_reads(path)}
    assert found == ALLOWED


@pytest.mark.process
def test_with_a_time_of_day_that_jumps_by_decades_replicas_die_and_nobody_notices(
    tmp_path: Path,
) -> None:
    """Control plane, gateway worker and engine host all read a clock that is never twice in the same year."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    flags = ("--replicas", "2", "--no-speech", "--stall-timeout-s", "2", "--keep-alive-s", "5")
    with running_service(*flags, path=(tmp_path,)) as service, asking(service) as clients:
        service.wait_for_replicas(all_ready)
        for number in range(2):
            os.kill(service.replicas()[number]["pid"], signal.SIGKILL)
            service.wait_for_replicas(
                lambda each: sum(one["restarts"] for one in each) > number and all_ready(each)  # noqa: B023
            )
        clients.wait_for(20)
        created_s = json.loads(service.ask("GET", "/v1/models")[2])["data"][0]["created"]
        assert abs(created_s - time.time()) > 1e7  # it did jump
        clients.stop()
    assert clients.failures == []
