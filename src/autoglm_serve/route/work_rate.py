"""How fast work is done: tokens of finished requests, recent ones counting most. Pure."""

import math

WINDOW_S = 10.0
_LEAST_S, _MOST_S = 1, 60
_UNKNOWN_S = 5
"""Nothing was finished yet: a guess."""


class WorkRate:
    """One worker's pace."""

    __slots__ = ("_at_s", "_tokens")

    def __init__(self, now_s: float) -> None:
        self._tokens = 0.0
        self._at_s = now_s

    def add(self, tokens: int, now_s: float) -> None:
        self._tokens = self._faded(now_s) + tokens
        self._at_s = now_s

    def seconds_for(self, tokens: int, now_s: float) -> int:
        """How long so much work takes at this rate, between 1 and 60 s."""
        rate = self._faded(now_s) / WINDOW_S
        return max(_LEAST_S, min(_MOST_S, math.ceil(tokens / rate))) if rate > 0 else _UNKNOWN_S

    def _faded(self, now_s: float) -> float:
        return self._tokens * math.exp((self._at_s - now_s) / WINDOW_S)
