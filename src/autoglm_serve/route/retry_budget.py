"""A budget for retries, so that a fleet in trouble is not asked many times over. Pure.

Each client has one of its own: its requests earn a share of a retry each and time earns some more, up to what
one replica that dies with all its streams may need at once. A replica that is lost now and then never meets
the limit; a client whose requests always fail soon does, and then each is asked once, while others go on. All
clients together have a larger one, for a fleet that answers everybody with an error.
"""

from collections import OrderedDict

SHARE = 0.1
"""Retries earned by one request."""
PER_S = 10.0
"""Retries earned in a second, whatever is asked: what frequent deaths under little traffic need."""
MOST = 1024.0
"""As many requests as the largest engines here carry at once."""
TOGETHER = 4
"""All clients of a worker have so many times what one has."""
_REMEMBERED = 4096
"""Clients whose budget is not whole. Whoever is forgotten has a whole one again."""


class _Purse:
    __slots__ = ("at_s", "left")

    def __init__(self, left: float, now_s: float) -> None:
        self.left = left
        self.at_s = now_s

    def has(self, now_s: float, factor: int) -> bool:
        """Whether one is left, after what time has earned."""
        earned = factor * PER_S * max(0.0, now_s - self.at_s)
        self.left, self.at_s = min(factor * MOST, self.left + earned), now_s
        return self.left >= 1


class RetryBudgets:
    """What the clients of one gateway worker may still spend."""

    def __init__(self) -> None:
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        """Of clients that have spent some, the one that did so last at the end."""
        self._together = _Purse(TOGETHER * MOST, 0.0)

    def asked(self, client: str) -> None:
        """A request of this client was sent for the first time."""
        together = self._together
        together.left = min(TOGETHER * MOST, together.left + SHARE)
        purse = self._purses.get(client)
        if purse is not None:
            purse.left = min(MOST, purse.left + SHARE)

    def spend(self, client: str, now_s: float) -> bool:
        """Whether one retry may be made; it is counted if so."""
        purse = self._purses.get(client)
        if purse is None:
            purse = self._purses[client] = _Purse(MOST, now_s)
            if len(self._purses) > _REMEMBERED:
                self._purses.popitem(last=False)
        self._purses.move_to_end(client)
        if not (purse.has(now_s, 1) and self._together.has(now_s, TOGETHER)):
            return False
        purse.left -= 1
        self._together.left -= 1
        return True
