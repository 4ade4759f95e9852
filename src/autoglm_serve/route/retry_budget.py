"""A budget for retries, so that a fleet in trouble is not asked many times over. Pure.

Each client has one of its own: its requests earn a share of a retry each and time earns some more, up to what
one replica that dies with all its streams may need at once. A replica that is lost now and then never meets
the limit; a client whose requests always fail soon does, and then each is asked once, while others go on. All
clients together have a larger one, for a fleet that fails everybody.

A second opinion on what an engine has answered with an error is paid from a purse of its own, a small one:
whoever asks for errors, which is cheap, spends nothing that a loss needs.
"""

from collections import OrderedDict

SHARE = 0.1
"""Retries earned by one request."""
PER_S = 10.0
"""Retries earned in a second, whatever is asked: what frequent deaths under little traffic need."""
MOST = 1024.0
"""As many requests as the largest engines here carry at once."""
OPINIONS, OPINIONS_PER_S = 32.0, 1.0
"""The same for second opinions."""
TOGETHER = 4
"""All clients of a worker have so many times what one has."""
_REMEMBERED = 4096
"""Clients whose budget is not whole. Whoever is forgotten has a whole one again."""


class _Purse:
    __slots__ = ("at_s", "left", "most", "per_s")

    def __init__(self, most: float, per_s: float, now_s: float) -> None:
        self.left = self.most = most
        self.per_s = per_s
        self.at_s = now_s

    def earn(self, share: float) -> None:
        self.left = min(self.most, self.left + share)

    def has(self, now_s: float) -> bool:
        """Whether one is left, after what time has earned."""
        self.earn(self.per_s * max(0.0, now_s - self.at_s))
        self.at_s = now_s
        return self.left >= 1


class RetryBudgets:
    """What the clients of one gateway worker may still spend."""

    def __init__(self, most: float = MOST, per_s: float = PER_S) -> None:
        self._most, self._per_s = most, per_s
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        """Of clients that have spent some, the one that did so last at the end."""
        self._together = _Purse(TOGETHER * most, TOGETHER * per_s, 0.0)

    def asked(self, client: str) -> None:
        """A request of this client was sent for the first time."""
        if not self._purses:
            return  # nobody has spent anything
        self._together.earn(SHARE)
        purse = self._purses.get(client)
        if purse is not None:
            purse.earn(SHARE)

    def spend(self, client: str, now_s: float) -> bool:
        """Whether one retry may be made; it is counted if so."""
        purse = self._purses.get(client)
        if purse is None:
            purse = self._purses[client] = _Purse(self._most, self._per_s, now_s)
            if len(self._purses) > _REMEMBERED:
                self._purses.popitem(last=False)
        self._purses.move_to_end(client)
        if not (purse.has(now_s) and self._together.has(now_s)):
            return False
        purse.left -= 1
        self._together.left -= 1
        return True
