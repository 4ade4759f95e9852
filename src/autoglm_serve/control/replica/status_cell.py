"""A replica's status and the only way to change it. One owner each; others read the frozen value."""

from dataclasses import replace
from typing import Any

from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.control.replica.lifecycle import LifecycleEvent, after
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.runtime.observable import Observable


def first_status(desired: DesiredReplica) -> ReplicaStatus:
    """Of a replica that nothing has happened to."""
    return ReplicaStatus(
        id=desired.id,
        slot=desired.slot,
        model=desired.member.name,
        engine=desired.member.plan.engine,
        state=ReplicaState.STOPPED,
        gpus=desired.placement.gpus,
    )


class StatusCell(Observable[ReplicaStatus]):
    """Holds the present status, which follows the table of transitions."""

    @property
    def state(self) -> ReplicaState:
        return self.value.state

    def move(self, event: LifecycleEvent, **facts: Any) -> None:
        """Follows the table of transitions; raises IllegalMove where it has none."""
        self.note(state=after(self.state, event), **facts)

    def note(self, **facts: Any) -> None:
        """New facts about the same state."""
        status = replace(self.value, **facts)
        if status != self.value:
            self.replace(status)
