"""A replica's status and the only way to change it. One owner each; others read the frozen value."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.control.replica.lifecycle import LifecycleEvent, after
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus


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


class StatusCell:
    """Holds the present status and says when there is a new one."""

    def __init__(self, status: ReplicaStatus, on_change: Callable[[], None]) -> None:
        self.status = status
        self._on_change = on_change

    @property
    def state(self) -> ReplicaState:
        return self.status.state

    def move(self, event: LifecycleEvent, **facts: Any) -> None:
        """Follows the table of transitions; raises IllegalMove where it has none."""
        self.note(state=after(self.status.state, event), **facts)

    def note(self, **facts: Any) -> None:
        """New facts about the same state."""
        status = replace(self.status, **facts)
        if status != self.status:
            self.status = status
            self._on_change()
