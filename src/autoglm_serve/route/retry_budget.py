"""A budget for retries, so that a fleet in trouble is not asked many times over. Pure.

Each request earns a share of a retry and time earns some more, up to what one replica that dies with all its
streams may need at once. A replica that is lost now and then never meets the limit; a fleet that answers
everything with an error soon does, and then each request is asked once.
"""

from dataclasses import dataclass

SHARE = 0.1
"""Retries earned by one request."""
PER_S = 10.0
"""Retries earned in a second, whatever is asked: what frequent deaths under little traffic need."""
MOST = 1024.0
"""As many requests as the largest engines here carry at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """What one gateway worker may still spend."""

    left: float = MOST
    at_s: float = 0.0
    """When `left` was right."""

    def asked(self) -> "RetryBudget":
        """A request was sent for the first time."""
        return RetryBudget(left=min(MOST, self.left + SHARE), at_s=self.at_s)

    def spend(self, now_s: float) -> "RetryBudget | None":
        """What is left after one retry; None if there is none to spend."""
        left = min(MOST, self.left + PER_S * max(0.0, now_s - self.at_s))
        return RetryBudget(left=left - 1, at_s=now_s) if left >= 1 else None
