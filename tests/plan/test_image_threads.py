"""How many threads prepare a screenshot, by cores, and what that does to the figures."""

from dataclasses import replace

import pytest

from autoglm_serve.core.hardware import GIB, Host
from autoglm_serve.plan.calibration import SHIPPED
from autoglm_serve.plan.cost import image_threads
from autoglm_serve.plan.request import Pins
from autoglm_serve.plan.shapes import Shape
from autoglm_serve.probe import hardware_table
from tests.plan.worlds import autoglm, chosen, planned

ONE = Shape(tensor_parallel=1, pipeline_parallel=1)
PAIR = Shape(tensor_parallel=2, pipeline_parallel=1)


def host(cores: int | None, threads: int | None = None) -> Host:
    return Host(memory_bytes=512 * GIB, free_bytes=512 * GIB, cores=cores, threads=threads)


@pytest.mark.parametrize(
    ("cores", "replicas", "shape", "threads"),
    [
        (64, 4, ONE, 4),
        (16, 2, ONE, 4),
        (8, 2, ONE, 2),
        (8, 1, PAIR, 4),
        (6, 1, PAIR, 2),
        (4, 2, ONE, 1),
        (1, 8, ONE, 1),
    ],
)
def test_threads_are_what_busy_processes_leave_of_the_cores(
    cores: int, replicas: int, shape: Shape, threads: int
) -> None:
    assert image_threads(host(cores), replicas, shape) == threads


def test_hardware_that_is_only_named_is_given_enough_cores() -> None:
    assert image_threads(None, 8, ONE) == 4
    assert image_threads(host(None), 8, ONE) == 4


def test_what_a_person_has_set_stays() -> None:
    assert image_threads(host(64, threads=1), 1, ONE) == 1
    decision = planned(replace(hardware_table.hardware("h200"), host=host(64, threads=9)))
    assert chosen(decision).threads == 9
    assert any("as OMP_NUM_THREADS says" in reason for reason in chosen(decision).reasons)


def test_a_plan_says_how_many_threads_and_why() -> None:
    plan = chosen(planned(replace(hardware_table.hardware("h200:2"), host=host(64))))
    assert plan.threads == 4
    assert any("4 threads, of 64 cores" in reason for reason in plan.reasons)


def test_a_model_that_sees_nothing_needs_none() -> None:
    blind = replace(autoglm(), vision=None)
    assert chosen(planned("h200", facts=blind)).threads is None


def test_with_more_threads_a_pair_of_gpus_waits_less_for_its_host() -> None:
    def pair(cores: int) -> tuple[float, float]:
        hardware = replace(hardware_table.hardware("h100:2"), host=host(cores))
        pins = Pins(tensor_parallel=2)
        found = chosen(planned(hardware, pins=pins, constants=SHIPPED["h100"])).predicted
        assert found is not None
        return found.steps_per_s, found.ttft_s

    few, many = pair(4), pair(64)
    assert many[0] > 1.1 * few[0]
    assert many[1] < 0.5 * few[1]
