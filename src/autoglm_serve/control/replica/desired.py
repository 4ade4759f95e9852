"""One replica as it ought to be."""

from dataclasses import dataclass

from autoglm_serve.core.plan import Member, Placement

SLOT = "slot"
"""In the note of a replica's process: by this slot the gateway's workers count what it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredReplica:
    """One replica as it ought to be: what it runs, where, and from which generation its process has to be."""

    id: str
    """Its own as long as it is wanted, whatever it runs and wherever it is counted."""
    slot: int
    """Its column in the table of loads."""
    member: Member
    placement: Placement
    generation: int = 0
    """A process of an earlier one is replaced although it runs what it should."""

    @property
    def note(self) -> dict[str, str]:
        """What its process keeps for the next control plane."""
        return {SLOT: str(self.slot)}
