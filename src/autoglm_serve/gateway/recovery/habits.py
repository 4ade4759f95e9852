"""What one worker has learnt of how addresses write their answers."""

from autoglm_serve.core.fleet import FleetView, ReplicaView


class Habits:
    """By address. A server that nobody here knows may never give a finish reason: then a clean `[DONE]` is
    the end of its streams, until it has given one."""

    def __init__(self) -> None:
        self._gives_finish: set[str] = set()

    def finish_needed(self, replica: ReplicaView) -> bool:
        """A stream from there that gives no finish reason was cut off."""
        return replica.gives_finish or replica.base_url in self._gives_finish

    def gives_finish(self, base_url: str) -> None:
        """An answer from there has given one."""
        self._gives_finish.add(base_url)

    def fleet_changed(self, view: FleetView) -> None:
        """Forget the addresses that are gone."""
        self._gives_finish &= {replica.base_url for replica in view.replicas}
