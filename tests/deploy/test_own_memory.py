"""What a service's own replicas hold is as good as free for its next plan; what others hold is not."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from autoglm_serve.config.options import Options
from autoglm_serve.core.plan import Deployment
from autoglm_serve.deploy import planning
from autoglm_serve.deploy.differ import change_of
from autoglm_serve.deploy.own_memory import NOTHING, Own, main_bytes, own_of, without
from autoglm_serve.probe import gpus
from autoglm_serve.probe.gpus import Driver, GpuReading, Snapshot

GIB = 1 << 30
READING = GpuReading(
    uuid="GPU-a",
    name="NVIDIA H200",
    capability=(9, 0),
    total_bytes=140 * GIB,
    used_bytes=100 * GIB,
    processes=((7, 80 * GIB), (8, 15 * GIB)),
)
SNAPSHOT = Snapshot(driver=Driver.OK, gpus=(READING, replace(READING, uuid="GPU-b")))


def used(own: Own, snapshot: Snapshot = SNAPSHOT) -> list[int]:
    return [reading.used_bytes // GIB for reading in without(own, snapshot).gpus]


def test_what_the_driver_says_of_our_processes_is_free() -> None:
    assert used(NOTHING) == [100, 100]
    assert used(Own(pids=frozenset({7}))) == [20, 20]
    first = without(Own(pids=frozenset({7})), SNAPSHOT).gpus[0]
    assert first.processes == ((8, 15 * GIB),)  # nobody is told that we are in our own way


def test_where_the_driver_names_nobody_it_is_what_they_were_told_to_take() -> None:
    unnamed = replace(SNAPSHOT, gpus=tuple(replace(each, processes=()) for each in SNAPSHOT.gpus))
    own = Own(pids=frozenset({7}), shares={"GPU-a": 0.5})
    assert used(own, unnamed) == [30, 100]
    assert used(Own(shares={"GPU-a": 0.5}), unnamed) == [100, 100]  # nothing of ours runs
    assert used(Own(pids=frozenset({7}), shares={"GPU-a": 0.9}), unnamed) == [0, 100]


def test_a_process_counts_with_all_that_it_has_started() -> None:
    grandchild = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", grandchild], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        own = own_of([child.pid, 2**22 + 1])
        assert child.pid in own.pids
        assert len(own.pids) == 2
        assert main_bytes(own) > 2 * 2**20
        child.communicate(b"\n")
    assert main_bytes(own) == 0


def test_the_number_of_replicas_on_gpus_is_planned_for_as_if_none_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = tuple(
        replace(each, used_bytes=130 * GIB, processes=((os.getpid(), 130 * GIB),)) for each in SNAPSHOT.gpus
    )
    snapshot = replace(SNAPSHOT, gpus=full)
    monkeypatch.setattr(gpus, "read", lambda: snapshot)
    options = Options(model=planning.DEFAULT_MODEL, replicas=2)
    assert planning.plan(options, {"HOME": "/none"}).chosen is None
    chosen = planning.plan(options, {"HOME": "/none"}, own=own_of([os.getpid()])).chosen
    assert chosen is not None
    assert [placement.gpus for placement in chosen.placements] == [(0,), (1,)]
    change = change_of(replace(options, replicas=1), options)
    assert (change.live, change.for_deployment) == (("replicas",), True)
    assert own_of([], Deployment()) == NOTHING
