"""Who tells a person what happens to the service."""

from typing import Protocol

from autoglm_serve.core.plan import Deployment
from autoglm_serve.core.replica import ReplicaStatus
from autoglm_serve.probe.hub import Download


class Reporter(Protocol):
    """Tells a person what happens. It is told everything and decides nothing."""

    def downloading(self, download: Download) -> None:
        """So much of a model is here. Called from a thread."""

    def planned(self, deployment: Deployment) -> None:
        """This is what will run, and why."""

    def replicas(self, statuses: tuple[ReplicaStatus, ...]) -> None:
        """Something changed about a replica."""

    def serving(self, url: str, deployment: Deployment) -> None:
        """The first request could be answered now."""

    def stopping(self, in_flight: int) -> None:
        """No new requests; those in flight are finished."""

    def close(self) -> None:
        """Nothing more is told: leave the terminal as it was."""
