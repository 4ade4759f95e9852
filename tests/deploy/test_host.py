"""What is asked of this machine beside its GPUs."""

import os

import pytest

from autoglm_serve.deploy.planning import host_here


def test_cores_are_those_that_this_process_may_use() -> None:
    assert host_here({"HOME": "/"}).cores == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("value", "threads"), [("6", 6), ("3,2", 3), ("", None), ("0", None), ("many", None), ("9999", None)]
)
def test_threads_that_a_person_has_set_are_read(value: str, threads: int | None) -> None:
    assert host_here({"HOME": "/", "OMP_NUM_THREADS": value}).threads == threads
    assert host_here({"HOME": "/"}).threads is None
