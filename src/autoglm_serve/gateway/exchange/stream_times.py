"""When one attempt's stream got on, less the time for which its client held it back.

Pure: it is told the time. What is learnt of a replica comes from here, and how fast a client reads says
nothing of a replica, so time that the client took counts nowhere.
"""

_EVENTS_THAT_TELL = 8


class StreamTimes:
    """The times of one attempt, on the clock that it is told."""

    __slots__ = (
        "_begun_s",
        "_first_s",
        "_held_s",
        "_paused_at_s",
        "_quiet_from_s",
        "_seen_events",
        "_seen_s",
    )

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._first_s: float | None = None
        self._seen_events = 0
        self._seen_s = 0.0
        """When it was last seen to have more events than before."""
        self._quiet_from_s = 0.0
        """That, or the end of a pause since: what was held back needs its time to come."""
        self._held_s = 0.0
        """How long it has been paused, in all the pauses that are over."""
        self._paused_at_s: float | None = None

    def pause(self, now_s: float) -> None:
        """The client takes no more for now."""
        if self._paused_at_s is None:
            self._paused_at_s = now_s

    def resume(self, now_s: float) -> None:
        """It takes more."""
        if self._paused_at_s is not None:
            self._held_s += now_s - self._paused_at_s
            self._paused_at_s = None
            self._quiet_from_s = self._unheld(now_s)

    def first(self, now_s: float) -> None:
        """Its first event has come; what comes later changes nothing."""
        if self._first_s is None:
            self._first_s = self._unheld(now_s)

    def look(self, events: int, now_s: float) -> None:
        """It has so many events now."""
        if events != self._seen_events:
            self._seen_events = events
            self._seen_s = self._quiet_from_s = self._unheld(now_s)

    def silent_s(self, now_s: float) -> float:
        """How long it had brought nothing when it was last looked at; before its first event, and while it
        is paused, 0."""
        if not self._seen_events or self._paused_at_s is not None:
            return 0.0
        return self._unheld(now_s) - self._quiet_from_s

    def waiting_s(self, now_s: float) -> float:
        """Since it began."""
        return self._unheld(now_s) - self._begun_s

    @property
    def prefill_s(self) -> float | None:
        """How long its first event took; None if there was none."""
        return None if self._first_s is None else self._first_s - self._begun_s

    @property
    def interval_s(self) -> float | None:
        """The usual time between two of its events; None if they were too few to tell."""
        if self._first_s is None or self._seen_events < _EVENTS_THAT_TELL:
            return None
        return max(0.0, self._seen_s - self._first_s) / (self._seen_events - 1)

    def _unheld(self, now_s: float) -> float:
        """`now_s` on a clock that stands still in every pause."""
        return (self._paused_at_s if self._paused_at_s is not None else now_s) - self._held_s
