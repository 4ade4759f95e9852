"""How many GPUs a load needs, and how many phones a machine carries."""

from dataclasses import replace

from autoglm_serve.core.hardware import GIB, Host
from autoglm_serve.plan.choose import Decision
from autoglm_serve.plan.closed_loop import Load, Replica, watch
from autoglm_serve.plan.demand import gpus_needed, met, phones_carried
from autoglm_serve.plan.request import Goal
from autoglm_serve.plan.start import lacking, start_of
from tests.plan.worlds import autoglm, chosen, planned


def asked(hardware: str, sessions: int, ttft_s: float) -> Decision:
    return planned(hardware, goal=Goal.TARGETS, sessions=sessions, target_ttft_s=ttft_s)


def test_the_fewest_cards_that_meet_the_targets() -> None:
    need = gpus_needed(asked("rtx4090", 40, 2.0))
    assert need is not None
    assert met(need.decision)
    assert need.gpus == 5
    assert not met(asked(f"rtx4090:{need.gpus - 1}", 40, 2.0))


def test_fewer_than_there_are_may_do() -> None:
    need = gpus_needed(asked("h200:8", 4, 5.0))
    assert need is not None
    assert need.gpus == 1


def test_targets_that_no_number_of_cards_meets() -> None:
    assert gpus_needed(asked("rtx3060", 40, 0.001)) is None


def test_as_many_phones_as_are_answered_in_time() -> None:
    one = phones_carried(asked("h200", 1, 2.0))
    two = phones_carried(asked("h200:2", 1, 2.0))
    assert one is not None
    assert two is not None
    assert met(one)
    few, many = (found.request.workload.sessions for found in (one, two))
    assert many > 1.6 * few
    assert not met(asked("h200", round(1.15 * few), 2.0))


def test_a_machine_that_answers_nobody_in_time_carries_no_phone() -> None:
    assert phones_carried(asked("h200", 1, 0.001)) is None


def test_sessions_that_think_leave_room_for_others() -> None:
    replica = Replica(
        beside_s=0.0,
        turn_s=0.0,
        image_s=0.0,
        token_s=1e-4,
        pair_s=0.0,
        weights_s=0.005,
        cached_s=0.0,
        pass_s=0.0,
        prompt_pass_s=0.0,
        batched_tokens=2048,
        image_room_tokens=2048,
        at_once=64,
    )
    load = Load(sessions=16, shared_tokens=0, text_tokens=1000, images=0, image_tokens=0, output_tokens=64)
    busy, relaxed = watch(replica, load), watch(replica, replace(load, think_s=20.0))
    assert relaxed.ttft_s < busy.ttft_s
    assert relaxed.steps_per_s < 16 / 20
    assert relaxed.steps_per_s > 0.9 * 16 / 21


def test_what_a_plan_takes_beside_the_gpus() -> None:
    plan = chosen(planned("h200:2"))
    start = start_of(autoglm(), plan)
    assert start.disk_bytes > autoglm().bytes
    assert start.cold_s > start.warm_s
    assert not list(lacking(start, None))
    small = Host(memory_bytes=8 * GIB, free_bytes=4 * GIB, disk_free_bytes=GIB)
    words = list(lacking(start, small))
    assert len(words) == 2
    assert "main memory" in words[0]
    assert "disk" in words[1]
