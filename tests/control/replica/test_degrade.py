"""A start that fails for now of memory: less is offered, or taken once."""

from dataclasses import replace
from pathlib import Path

from autoglm_serve.control.replica.health import Health
from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts, ReplicaState
from autoglm_serve.engines.base import Command, Listen
from tests.control.worlds import World, run, world
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member


class Hungry(FaultyAdapter):
    """Every exit is for now of GPU memory. The environment tells the plan."""

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        command = FaultyAdapter.command(self, member, placement, listen)
        return replace(command, env={"SEQUENCES": str(member.plan.max_num_seqs)})

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        return Diagnosis(
            cause=ExitCause.OUT_OF_MEMORY, summary="No memory.", remedy="Take less.", retryable=False
        )


def member(*, may_degrade: bool) -> Member:
    made = faulty_member()
    return replace(made, may_degrade=may_degrade, plan=replace(made.plan, max_num_seqs=64))


async def dies(w: World) -> None:
    await w.clock.advance(0.1)
    w.process.leave(code=1)
    await w.clock.advance(2)


def test_less_is_offered(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, member(may_degrade=False), adapter=Hungry(), health=Health.NOT_YET) as w:
            await dies(w)
            assert w.status.state is ReplicaState.FAILED
            assert w.status.last_exit is not None
            assert w.status.last_exit.remedy == (
                "Take less. Or start with --degrade, which takes less than planned (max_num_seqs 64 → 32)."
            )

    run(story)


def test_less_is_taken_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, member(may_degrade=True), adapter=Hungry(), health=Health.NOT_YET) as w:
            await dies(w)
            assert sequences(w) == ["64", "32"]
            await dies(w)
            assert sequences(w) == ["64", "32"]
            assert w.status.state is ReplicaState.FAILED

    run(story)


def sequences(w: World) -> list[str]:
    """max_num_seqs of every start."""
    return [process.command.env["SEQUENCES"] for process in w.launcher.started]
