"""Which log lines are worth saying again. Pure: it is told the time.

What happens once is said. What happens again and again is said once, and then with a count: a client may
cause as many lines as it likes, and a disk has an end.
"""

from dataclasses import dataclass

WINDOW_S = 10.0
BURST = 20
"""Different lines of one kind that are said in a window."""
_KINDS = 256
"""That are kept apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Lines of one kind that were not said."""

    kind: str
    last: str
    count: int


@dataclass(slots=True, kw_only=True)
class _Window:
    until_s: float
    said: set[str]
    left_out: int = 0
    last: str = ""


class Repeats:
    """The kinds of lines of one process that were said lately. A kind is a message before its arguments."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def admit(self, kind: str, line: str, now_s: float) -> bool:
        """Whether to say this line; one that is not said is counted."""
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= _KINDS:
                return True
            window = self._windows[kind] = _Window(until_s=now_s + WINDOW_S, said=set())
        if line not in window.said and len(window.said) < BURST:
            window.said.add(line)
            return True
        window.left_out += 1
        window.last = line
        return False

    def over(self, now_s: float) -> list[Summary]:
        """What is to be said of the windows that have ended, which are forgotten with it."""
        ended = [kind for kind, window in self._windows.items() if now_s >= window.until_s]
        windows = [(kind, self._windows.pop(kind)) for kind in ended]
        return [
            Summary(kind=kind, last=window.last, count=window.left_out)
            for kind, window in windows
            if window.left_out
        ]
