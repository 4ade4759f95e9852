"""What the supervisor does, told as stories on a clock that stands still."""

import asyncio
import errno
import signal
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from autoglm_serve.control.replica.controller import ended_by_itself
from autoglm_serve.control.replica.health import Health
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import ExitCause, ExitFacts, Loss, ReplicaState
from autoglm_serve.engines.vllm import Vllm
from autoglm_serve.launch.base import Exit
from tests.control.worlds import run, world
from tests.fakes.clock import settled
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member

S = ReplicaState


# --- starting


def test_replicas_start_and_become_ready_when_their_health_path_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2), health=Health.NOT_YET) as w:
            await w.clock.advance(2)
            assert [s.state for s in w.supervisor.statuses()] == [S.STARTING, S.STARTING]
            assert not w.supervisor.first_ready.is_set()
            w.else_health = Health.OK
            await w.clock.advance(1)
            assert [s.state for s in w.supervisor.statuses()] == [S.READY, S.READY]
            assert w.supervisor.first_ready.is_set()

    run(story)


def test_a_status_says_where_the_replica_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2)) as w:
            await w.clock.advance(1)
            first, second = w.supervisor.statuses()
            assert (first.id, first.slot, second.id, second.slot) == ("r0", 0, "r1", 1)
            assert (first.model, first.engine) == ("faulty-model", "faulty")
            assert first.base_url == f"http://127.0.0.1:{first.port}"
            assert first.pid == w.launcher.started[0].pid
            assert first.restarts == 0
            assert first.last_exit is None

    run(story)


def test_statuses_are_values(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            with pytest.raises(FrozenInstanceError):
                w.status.restarts = 1  # type: ignore[misc]

    run(story)


def test_slots_count_through_all_members(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2), faulty_member(replicas=1)) as w:
            assert [(s.id, s.slot) for s in w.supervisor.statuses()] == [("r0", 0), ("r1", 1), ("r2", 2)]

    run(story)


def test_progress_is_read_from_the_log(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.NOT_YET) as w:
            await w.clock.advance(0.1)
            w.process.say("noise", "stage: loading 3 of 5")
            await w.clock.advance(1)
            assert w.status.progress is not None
            assert w.status.progress.stage == "loading 3 of 5"
            assert w.supervisor.log_tail("r0") == ("noise", "stage: loading 3 of 5")

    run(story)


def test_a_start_that_shows_no_progress_is_ended_and_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(
            tmp_path, faulty_member(), adapter=FaultyAdapter(start_timeout_s=60), health=Health.NOT_YET
        ) as w:
            for _ in range(5):  # each line is a sign of life
                await w.clock.advance(50)
                w.process.say("still loading")
            assert w.status.state is S.STARTING
            await w.clock.advance(62)
            assert w.status.last_exit is not None
            assert w.status.last_exit.cause is ExitCause.STUCK
            assert w.states()[:3] == [S.STARTING, S.STOPPING, S.WAITING]
            assert len(w.launcher.started) == 2

    run(story)


# --- ending by itself


def test_a_killed_replica_comes_back_and_the_restart_is_counted(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            before = w.status
            w.process.leave(signal=9)
            await settled()
            assert (w.status.state, w.status.pid, w.status.base_url) == (S.WAITING, None, "")
            assert w.status.last_exit is not None
            assert w.status.last_exit.cause is ExitCause.KILLED
            assert w.status.retry_in_s == 1.0
            await w.clock.advance(2)
            assert w.status.state is S.READY
            assert w.status.restarts == 1
            assert w.status.port != before.port

    run(story)


@pytest.mark.parametrize(
    ("how", "cause", "by_itself"),
    [
        (Exit(signal=signal.SIGKILL), ExitCause.KILLED, False),
        (Exit(signal=signal.SIGTERM), ExitCause.KILLED, False),
        (Exit(signal=signal.SIGKILL, oom_kills=1), ExitCause.OUT_OF_MEMORY, True),
        (Exit(signal=signal.SIGSEGV), ExitCause.KILLED, True),
        (Exit(signal=signal.SIGABRT), ExitCause.KILLED, True),
        (Exit(code=1), ExitCause.UNKNOWN, True),
        (Exit(code=0), ExitCause.ASKED, False),
        (Exit(code=0), ExitCause.UNKNOWN, True),
        (Exit(code=0), ExitCause.DRIVER, True),
        (Exit(code=143), ExitCause.UNKNOWN, False),
        (Exit(), ExitCause.UNKNOWN, False),
        (Exit(oom_kills=1), ExitCause.UNKNOWN, True),
    ],
)
def test_whether_it_ended_by_itself_is_read_from_how_and_why(
    how: Exit, cause: ExitCause, by_itself: bool
) -> None:
    assert ended_by_itself(how, cause) is by_itself


def test_a_vllm_that_ends_well_because_its_core_died_counts_as_ended_by_itself() -> None:
    """Its exit status is 0 then, as when it is asked to end."""
    for told, by_itself in (("[shutdown] API server: shutdown triggered", False), ("Shutting down", True)):
        log = ("AsyncLLM output_handler failed.", "vllm.v1.engine.exceptions.EngineDeadError", told)
        diagnosis = Vllm().diagnose(ExitFacts(code=0, signal=None, was_ready=True, log_tail=log))
        assert ended_by_itself(Exit(code=0), diagnosis.cause) is by_itself


def test_a_death_is_told_before_what_it_left_is_ended_and_followed_after(tmp_path: Path) -> None:
    """An engine core with a full GPU takes a second to die: nobody is sent there, and nothing is started."""

    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            address, dying = w.status.base_url, w.process
            dying.burial_s = 30.0
            dying.leave(signal=signal.SIGSEGV)
            await settled()
            assert (w.status.state, w.status.pid, w.status.base_url) == (S.WAITING, None, "")
            assert w.status.lost == Loss(base_url=address, by_itself=True)
            await w.clock.advance(29)
            assert not dying.closed
            assert len(w.launcher.started) == 1
            await w.clock.advance(3)
            assert dying.closed
            assert w.status.state is S.READY
            assert len(w.launcher.started) == 2

    run(story)


def test_a_replica_holds_its_gpus_until_nothing_of_it_is_left(tmp_path: Path) -> None:
    async def story() -> None:
        member = faulty_member()
        on_a_gpu = replace(member, plan=replace(member.plan, placements=(Placement(gpus=(3,)),)))
        async with world(tmp_path, on_a_gpu) as w:
            await w.clock.advance(1)
            controller = w.supervisor.controller("r0")
            assert controller is not None
            held = controller.holds
            assert {gpu for _, gpu in held} == {3}
            w.process.burial_s = 5.0
            w.process.leave(code=1)
            await settled()
            assert w.status.state is S.WAITING
            assert controller.holds == held
            w.launcher.broken = OSError("no room")
            await w.clock.advance(6)
            assert controller.holds == frozenset()

    run(story)


def test_a_replica_that_is_told_to_end_while_it_is_buried_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.process.burial_s = 5.0
            w.process.leave(code=1)
            await settled()
            removing = asyncio.create_task(w.supervisor.remove("r0", 0.0))
            await w.clock.advance(1)
            assert not removing.done()
            await w.clock.advance(5)
            await removing
            assert w.launcher.started[0].closed
            assert len(w.launcher.started) == 1

    run(story)


def test_a_replica_that_served_and_is_gone_is_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            address = w.status.base_url
            w.process.leave(signal=signal.SIGSEGV)
            await settled()
            assert w.status.lost == Loss(base_url=address, by_itself=True)
            await w.clock.advance(5)
            assert w.status.state is S.READY
            assert w.status.lost == Loss(base_url=address, by_itself=True)

    run(story)


def test_waits_grow_while_it_keeps_crashing_and_shrink_after_a_stable_life(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            waits = []
            for _ in range(4):
                await w.clock.advance(1)
                w.process.leave(code=1)
                await settled()
                waits.append(w.status.retry_in_s)
                await w.clock.advance(waits[-1] or 0)
            assert waits == [1.0, 2.0, 4.0, 8.0]
            await w.clock.advance(61)
            w.process.leave(code=1)
            await settled()
            assert w.status.retry_in_s == 1.0

    run(story)


def test_what_cannot_succeed_is_not_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.SILENT) as w:
            w.process.say("fatal: the model is no model")
            w.process.leave(code=13)
            await w.clock.advance(3600)
            assert w.status.state is S.FAILED
            assert w.status.last_exit is not None
            assert w.status.last_exit.summary == "the model is no model"
            assert len(w.launcher.started) == 1

    run(story)


def test_a_replica_that_never_was_ready_is_given_up_after_a_few_starts(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.SILENT) as w:
            for _ in range(10):
                w.process.leave(code=1)
                await w.clock.advance(20)
            assert w.status.state is S.FAILED
            assert len(w.launcher.started) == 5
            assert w.status.last_exit is not None
            assert "5 times" in w.status.last_exit.summary

    run(story)


def test_a_replica_that_once_was_ready_is_never_given_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.else_health = Health.SILENT
            for _ in range(10):
                w.process.leave(code=1)
                await settled()
                await w.clock.advance(w.status.retry_in_s or 0)
            assert len(w.launcher.started) == 11

    run(story)


def test_an_engine_that_is_not_installed_fails_once_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.launcher.broken = FileNotFoundError("vllm is not installed")
            w.process.leave(code=1)
            await w.clock.advance(600)
            assert w.status.state is S.FAILED
            assert w.status.last_exit is not None
            assert w.status.last_exit.cause is ExitCause.ENGINE_MISSING
            assert "vllm is not installed" in w.status.last_exit.summary

    run(story)


def test_a_machine_without_room_for_a_process_is_waited_for(tmp_path: Path) -> None:
    """A full disk, no descriptors, no processes left: other than a program that is missing, it passes."""

    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            problem = OSError(errno.ENOSPC, "No space left on device")
            w.launcher.broken = problem
            w.process.leave(code=1)
            await w.clock.advance(600)
            assert w.status.retry_in_s
            assert w.status.last_exit is not None
            assert "No space left" in w.status.last_exit.summary
            w.launcher.broken = None
            await w.clock.advance(100)
            assert w.status.state is S.READY

    run(story)


def test_the_last_lines_of_a_log_are_read_before_the_exit_is_judged(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.SILENT) as w:
            await w.clock.advance(1)
            w.process.say("fatal: said with its last breath")
            w.process.leave(code=1)
            await settled()
            assert w.status.state is S.FAILED

    run(story)


def test_no_snapshot_shows_a_ready_replica_without_an_address(tmp_path: Path) -> None:
    async def story() -> None:
        seen = []
        async with world(tmp_path, faulty_member()) as w:
            note = w.note

            def watch() -> None:
                note()
                seen.append(w.status)

            w.note = watch  # type: ignore[method-assign]
            for _ in range(3):
                await w.clock.advance(5)
                w.process.leave(signal=9)
            await w.clock.advance(5)
        assert seen
        assert all(bool(s.base_url) == (s.state in (S.STARTING, S.READY, S.STOPPING)) for s in seen)

    run(story)


# --- alive but deaf


def test_a_ready_replica_that_stops_answering_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(10)
            w.launcher.obeys = False
            w.else_health = Health.SILENT
            await w.clock.advance(60)
            assert w.status.last_exit is not None
            assert w.status.last_exit.cause is ExitCause.STUCK
            w.else_health = Health.OK
            await w.clock.advance(10)
            assert w.status.state is S.READY
            assert w.status.restarts == 1

    run(story)


def test_a_few_missed_answers_are_forgiven(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(10)
            for _ in range(5):
                w.else_health = Health.SILENT
                await w.clock.advance(11)
                w.else_health = Health.OK
                await w.clock.advance(6)
            assert w.status.state is S.READY
            assert len(w.launcher.started) == 1

    run(story)


def test_a_replica_is_ready_only_when_it_has_given_a_token(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.NOT_YET) as w:
            w.token = Health.NOT_YET
            w.else_health = Health.OK
            await w.clock.advance(10)
            assert w.states() == [S.STARTING]
            w.token = Health.OK
            await w.clock.advance(1)
            assert w.states() == [S.STARTING, S.READY]

    run(story)


def test_one_that_never_gives_a_token_is_started_again_and_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.NOT_YET) as w:
            w.token = Health.SILENT
            w.else_health = Health.OK
            await w.clock.advance(400)
            assert w.status.last_exit is not None
            assert w.status.last_exit.cause is ExitCause.STUCK
            assert "gave no token" in w.status.last_exit.summary
            assert S.READY not in w.states()

    run(story)


def test_one_that_does_not_take_the_question_is_believed_by_its_health_path(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.NOT_YET) as w:
            w.token = Health.ABSENT
            w.else_health = Health.OK
            await w.clock.advance(2)
            assert w.status.state is S.READY

    run(story)


def test_a_replica_that_gets_on_with_nothing_and_gives_no_token_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.use, w.token = (3, 10), Health.SILENT
            await w.clock.advance(170)
            assert w.status.state is S.READY
            await w.clock.advance(20)
            assert w.status.last_exit is not None
            assert "has got on with nothing" in w.status.last_exit.summary

    run(story)


@pytest.mark.parametrize("sign", ["a token", "its counters", "a request that ended"])
def test_a_merely_busy_replica_is_left_alone(tmp_path: Path, sign: str) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.use = (3, 10)
            w.token = Health.OK if sign == "a token" else Health.SILENT
            for number in range(20):
                if sign == "its counters":
                    w.steps = number
                if sign == "a request that ended":
                    w.use = (3, 10 + number)
                await w.clock.advance(100)
            assert w.status.state is S.READY
            assert len(w.launcher.started) == 1

    run(story)


def test_an_idle_replica_is_never_asked_for_a_token_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(3600)
            assert w.tokens_asked == 1

    run(story)


# --- being asked to stop


def test_stop_asks_within_the_grace_and_then_everything_is_stopped(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(replicas=2)) as w:
            await w.clock.advance(1)
            await w.supervisor.stop(7.0)
            assert [s.state for s in w.supervisor.statuses()] == [S.STOPPED, S.STOPPED]
            assert [p.graces_s for p in w.launcher.started] == [[7.0], [7.0]]
            assert all(p.closed for p in w.launcher.started)
            assert w.status.last_exit is None

    run(story)


def test_a_second_stop_hurries_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.launcher.obeys = False
            w.process._obeys = False
            patient = asyncio.create_task(w.supervisor.stop(1000.0))
            await w.clock.advance(5)
            assert w.status.state is S.STOPPING
            await asyncio.gather(w.supervisor.stop(0.0), patient)
            assert w.process.graces_s == [1000.0, 0.0]

    run(story)


def test_a_process_that_even_sigkill_does_not_end_does_not_hold_us(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.process._obeys = w.process.mortal = False
            await w.supervisor.stop(0.0)
            assert w.status.state is S.STOPPED

    run(story)
    assert "pid 101 cannot be ended" in caplog.text


@pytest.mark.parametrize("moment", ["starting", "waiting", "failed"])
def test_stop_works_at_every_moment(tmp_path: Path, moment: str) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), health=Health.SILENT) as w:
            if moment == "waiting":
                w.process.leave(code=1)
            if moment == "failed":
                w.process.say("fatal: x")
                w.process.leave(code=1)
            await settled()
            assert w.status.state == moment
            await w.supervisor.stop(0.0)
            assert w.status.state is S.STOPPED

    run(story)


def test_a_drained_replica_goes_on_and_is_not_started_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.supervisor.drain()
            await w.clock.advance(30)
            assert w.status.state == "draining"
            assert w.process.graces_s == []
            w.process.leave(code=0)
            await w.clock.advance(600)
            assert w.status.state is S.STOPPED
            assert len(w.launcher.started) == 1

    run(story)


# --- on demand


def test_a_model_on_demand_is_started_when_woken_and_stopped_when_sent_to_rest(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(on_demand=True)) as w:
            await w.clock.advance(60)
            assert (w.status.state, w.launcher.started) == (S.STOPPED, [])
            w.supervisor.wake("faulty-model")
            w.supervisor.wake("faulty-model")
            await w.clock.advance(1)
            assert (w.status.state, len(w.launcher.started)) == (S.READY, 1)
            w.supervisor.sleep("faulty-model")
            await w.clock.advance(1)
            assert w.status.state is S.STOPPED
            w.supervisor.wake("faulty-model")
            await w.clock.advance(1)
            assert (w.status.state, w.status.restarts) == (S.READY, 0)

    run(story)


def test_a_failed_model_on_demand_is_tried_again_after_a_rest(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(on_demand=True), health=Health.SILENT) as w:
            w.supervisor.wake("faulty-model")
            await settled()
            w.process.say("fatal: x")
            w.process.leave(code=1)
            await w.clock.advance(1)
            assert w.status.state == "failed"
            w.supervisor.wake("faulty-model")
            await w.clock.advance(1)
            assert len(w.launcher.started) == 1
            w.supervisor.sleep("faulty-model")
            w.else_health = Health.OK
            await settled()
            w.supervisor.wake("faulty-model")
            await w.clock.advance(1)
            assert w.status.state is S.READY

    run(story)


# --- addresses of others


def external_member(*urls: str) -> Member:
    return Member(
        names=("theirs",),
        files=ModelFiles(reference="theirs", format=ModelFormat.REMOTE),
        plan=Plan(engine="external", placements=tuple(Placement(address=url) for url in urls)),
    )


def test_an_external_address_is_only_watched(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, external_member("http://a", "http://b")) as w:
            w.health["http://b"] = Health.SILENT
            await w.clock.advance(5)
            first, second = w.supervisor.statuses()
            assert (first.state, first.base_url, first.pid) == (S.READY, "http://a", None)
            assert second.base_url == "http://b"
            w.health["http://b"] = Health.OK
            w.health["http://a"] = Health.SILENT
            await w.clock.advance(5)
            first, second = w.supervisor.statuses()
            assert (first.state, second.state) == (S.STARTING, S.READY)
            assert first.last_exit is not None
            assert first.last_exit.cause is ExitCause.STUCK
            w.health["http://a"] = Health.OK
            await w.clock.advance(5)
            assert w.status.state is S.READY
            assert w.status.restarts == 1
            assert w.launcher.started == []

    run(story)


def test_a_server_without_a_health_path_is_asked_for_its_models(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, external_member("http://a"), health=Health.ABSENT) as w:
            await w.clock.advance(2)
            assert w.status.state is S.READY
            assert w.asked[-2:] == [("http://a", "/health"), ("http://a", "/v1/models")]

    run(story)


def test_stopping_leaves_the_servers_of_others_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, external_member("http://a")) as w:
            await w.clock.advance(2)
            w.supervisor.drain()
            assert w.status.state == "draining"
            await w.supervisor.stop(5.0)
            assert w.status.state is S.STOPPED

    run(story)


# --- what is held against a bad look, and against words in a log


def test_an_address_whose_streams_flow_is_not_lost_by_bad_looks(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, external_member("http://a")) as w:
            await w.clock.advance(2)
            w.health["http://a"] = Health.SILENT
            for _ in range(20):
                w.movement += 1
                await w.clock.advance(1)
                assert w.status.state is S.READY
            await w.clock.advance(5)  # now nothing comes from there
            assert w.status.state is S.STARTING

    run(story)


def test_a_replica_that_brings_its_clients_something_is_not_stuck(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(1)
            w.else_health = Health.SILENT
            for _ in range(120):
                w.movement += 1
                await w.clock.advance(1)
            assert w.status.state is S.READY
            await w.clock.advance(60)
            assert S.STOPPING in w.states()

    run(story)


def test_a_line_in_the_log_of_one_that_has_served_dooms_it_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            for _ in range(3):
                await w.clock.advance(1)
                w.process.say("fatal: what a client wrote into its request")
                w.process.leave(code=1)
                await settled()
                assert w.states()[-2:] == [S.READY, S.WAITING]
                await w.clock.advance(w.status.retry_in_s or 0)

    run(story)
