"""What is done first on the way from what runs to what ought to run, whatever either is."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.reconcile import (
    Correction,
    Present,
    Remove,
    Renew,
    StartReplica,
    next_correction,
)
from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.core.plan import Placement
from tests.fakes.faulty_adapter import faulty_member

MEMBER = faulty_member()


def replica(name: str, *gpus: int, generation: int = 0) -> DesiredReplica:
    placement = Placement(gpus=gpus)
    return DesiredReplica(id=name, slot=0, member=MEMBER, placement=placement, generation=generation)


def holds(each: DesiredReplica) -> frozenset[tuple[str, int]]:
    return frozenset((each.placement.host, gpu) for gpu in each.placement.gpus)


class Machine:
    """Takes steps at once; refuses one that puts two processes on a GPU."""

    def __init__(self, running: Sequence[DesiredReplica]) -> None:
        self.running = {each.id: each for each in running}
        self.taken: list[str] = []

    def present(self, desired: DesiredState) -> tuple[Present, ...]:
        wanted = {each.id: each for each in desired.replicas}
        return tuple(
            Present(
                replica=each,
                holds=holds(each),
                outdated=each.id in wanted and wanted[each.id] != each,
            )
            for each in self.running.values()
        )

    def make(self, correction: Correction, desired: DesiredState) -> None:
        wanted = {each.id: each for each in desired.replicas}
        match correction:
            case StartReplica(replica=new):
                self.put(new)
            case Renew(id=name):
                self.put(wanted[name])
            case Remove(id=name):
                del self.running[name]
        self.taken.append(type(correction).__name__)

    def put(self, new: DesiredReplica) -> None:
        others = (each for name, each in self.running.items() if name != new.id)
        assert not any(holds(each) & holds(new) for each in others)
        self.running[new.id] = new

    def settle(self, desired: DesiredState) -> list[str]:
        for _ in range(100):
            correction = next_correction(desired, self.present(desired))
            if correction is None:
                assert self.running == {each.id: each for each in desired.replicas}
                return self.taken
            self.make(correction, desired)
        raise AssertionError(f"it never ends: {self.taken}")


def state(*replicas: DesiredReplica) -> DesiredState:
    return DesiredState(replicas=replicas)


def test_what_runs_as_it_ought_to_is_left_alone() -> None:
    assert Machine([replica("r0"), replica("r1")]).settle(state(replica("r0"), replica("r1"))) == []


def test_the_new_come_before_the_old_go() -> None:
    machine = Machine([replica("r0"), replica("r1")])
    assert machine.settle(state(replica("r0", generation=1), replica("r2"))) == [
        "StartReplica",
        "Renew",
        "Remove",
    ]


def test_who_holds_the_gpus_of_another_goes_first() -> None:
    """Two replicas of a GPU each become one over both."""
    machine = Machine([replica("r0", 0), replica("r1", 1)])
    assert machine.settle(state(replica("r0", 0, 1))) == ["Remove", "Renew"]


def test_two_that_change_places_do_it_one_after_the_other() -> None:
    machine = Machine([replica("r0", 0), replica("r1", 1)])
    assert machine.settle(state(replica("r0", 1), replica("r1", 0))) == ["Remove", "Renew", "StartReplica"]


GROUPS = st.permutations(range(6)).flatmap(
    lambda order: st.integers(1, 3).map(
        lambda size: [tuple(order[at : at + size]) for at in range(0, len(order) - size + 1, size)]
    )
)


@st.composite
def states(draw: st.DrawFn) -> DesiredState:
    groups = draw(GROUPS)
    count = draw(st.integers(0, len(groups)))
    names = draw(st.permutations([f"r{number}" for number in range(6)]))
    generations = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    return state(
        *(
            replace(replica(name, *group), generation=generation)
            for name, group, generation in zip(names, groups, generations, strict=False)
        )
    )


@given(st.lists(states(), min_size=2, max_size=4))
def test_every_desired_state_is_reached_from_every_other_with_no_gpu_held_twice(
    wishes: list[DesiredState],
) -> None:
    machine = Machine(wishes[0].replicas)
    for desired in wishes[1:]:
        machine.settle(desired)


@given(states(), states(), st.integers(0, 5))
def test_a_desired_state_that_changes_on_the_way_is_followed_from_there(
    first: DesiredState, second: DesiredState, steps: int
) -> None:
    machine = Machine(first.replicas)
    for _ in range(steps):
        correction = next_correction(second, machine.present(second))
        if correction is not None:
            machine.make(correction, second)
    machine.settle(first)
