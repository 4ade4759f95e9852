"""A circuit breaker per replica. Pure: states are values, the clock is passed in.

Closed: requests pass. After `failures` in a row it opens and none does. After a while one request is let
through as a probe (half-open): its success closes the breaker, its failure opens it again for longer.
Failures are lost connections, 5xx, broken and stalled streams; never a 4xx, never a client that left.
"""

from dataclasses import dataclass, replace

FAILURES = 3
FIRST_OPEN_S = 0.5
LONGEST_OPEN_S = 30.0
PROBE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """One replica's record, as one gateway worker saw it."""

    failures: int = 0
    """In a row."""
    opened: int = 0
    """How often it has opened without a success in between."""
    probe_at_s: float = 0.0
    """While open: when the next probe may pass."""

    def allows(self, now_s: float) -> bool:
        """Whether a request may be sent at `now_s`."""
        return not self.opened or now_s >= self.probe_at_s

    def probing(self, now_s: float) -> "Breaker":
        """A request is being sent. While it is under way no other passes an open breaker."""
        return replace(self, probe_at_s=now_s + PROBE_S) if self.opened else self

    def succeeded(self) -> "Breaker":
        return CLOSED

    def failed(self, now_s: float) -> "Breaker":
        failures = self.failures + 1
        if failures < FAILURES and not self.opened:
            return replace(self, failures=failures)
        open_s = min(FIRST_OPEN_S * 2.0 ** min(self.opened, 64), LONGEST_OPEN_S)
        return Breaker(failures=failures, opened=self.opened + 1, probe_at_s=now_s + open_s)


CLOSED = Breaker()
