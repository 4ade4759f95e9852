"""How long to wait before a replica is started again. Pure: the dice are thrown by the caller."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Exponential, with jitter so that replicas that died together do not start together."""

    first_s: float = 0.25
    factor: float = 2.0
    most_s: float = 60.0
    jitter: float = 0.25
    """Each wait is spread by this share of itself, up and down."""
    stable_s: float = 4.0
    """A life this long in readiness forgives every crash before it: it served, and was not a failed start.
    A replica that is killed every few seconds must not be away for a minute each time."""

    def delay_s(self, crashes: int, roll: float) -> float:
        """The wait after so many crashes in a row (at least one); `roll` is uniform in [0, 1)."""
        doublings = min(max(crashes, 1) - 1, 64)
        base_s = min(self.first_s * self.factor**doublings, self.most_s)
        return base_s * (1 + self.jitter * (2 * roll - 1))

    def crashes_after(self, crashes: int, ready_for_s: float) -> int:
        """The row of crashes with this one in it."""
        return 1 if ready_for_s >= self.stable_s else crashes + 1
