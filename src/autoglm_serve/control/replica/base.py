"""What a fleet may ask of whatever keeps one of its replicas: our own process, or somebody else's address."""

from typing import Protocol

from autoglm_serve.control.replica.desired import DesiredReplica
from autoglm_serve.core.replica import ReplicaStatus
from autoglm_serve.engines.base import Engine


class Controller(Protocol):
    """Keeps one replica. `run` is its task; everything else returns at once."""

    @property
    def status(self) -> ReplicaStatus: ...

    @property
    def desired(self) -> DesiredReplica:
        """What it is to be from its next start on."""
        ...

    @property
    def ours(self) -> bool:
        """Its processes are started here, so they can be restarted."""
        ...

    @property
    def outdated(self) -> bool:
        """What runs is not what is desired, and it takes another process to be that."""
        ...

    @property
    def holds(self) -> frozenset[tuple[str, int]]:
        """The GPUs of its process, each with its machine."""
        ...

    @property
    def log_tail(self) -> tuple[str, ...]: ...

    async def run(self) -> None:
        """Returns once it was told to end, and nothing of it runs."""
        ...

    def adapt(self, desired: DesiredReplica, engine: Engine) -> None:
        """What it is to be from its next start on; what runs goes on."""
        ...

    def renew(self, grace_s: float) -> None:
        """Another process instead of the one that runs, or one where there is none but should be."""
        ...

    def wake(self) -> None:
        """Starts one that sleeps."""
        ...

    def sleep(self, grace_s: float) -> None:
        """Stops its process until it is woken."""
        ...

    def drain(self) -> None:
        """No new requests; what it has goes on."""
        ...

    def end(self, grace_s: float) -> None:
        """Stops for good. A second call may hurry the first."""
        ...
