"""An answer that its client does not read as fast as it comes: how much is kept, and for how long. Pure.

An engine that has said all should not wait for a slow reader, so some is kept here, within what the worker
holds. A reader that takes less than the least rate is given up.
"""

from autoglm_serve.gateway.wire.held import Held


class Unread:
    """What waits for one client. Sizes are those of the transport's buffer, times those of its loop."""

    __slots__ = (
        *("_added_bytes", "_held", "_holder", "_mark_bytes", "_may_keep_bytes", "_start_bytes"),
        *("deadline_s", "holds_back", "waits"),
    )

    def __init__(self, held: Held) -> None:
        self._held = held
        self._holder = ""
        self._may_keep_bytes = 0
        self._start_bytes = self._added_bytes = self._mark_bytes = 0
        self.waits = False
        """The transport's buffer has been full and is not empty again."""
        self.holds_back = False
        """More is not kept: whoever writes should wait."""
        self.deadline_s: float | None = None
        """When the reader is given up, unless it takes enough until then."""

    def begin(
        self, holder: str, size_bytes: int, may_keep: tuple[int, ...], deadline_s: float | None
    ) -> None:
        """The buffer is full. As much is kept as the first of `may_keep` (bytes) for which there is room."""
        self._holder = holder
        self._start_bytes, self._added_bytes, self._mark_bytes = size_bytes, 0, 0
        self._may_keep_bytes = next((each for each in may_keep if self._held.take(holder, each)), 0)
        self.waits, self.deadline_s = True, deadline_s
        self.holds_back = size_bytes >= self._may_keep_bytes

    def add(self, written_bytes: int, size_bytes: int) -> bool:
        """More was written. True if the writer has to wait from now on."""
        self._added_bytes += written_bytes
        if self.holds_back or size_bytes < self._may_keep_bytes:
            return False
        self.holds_back = True
        return True

    def end(self) -> bool:
        """The buffer is empty again. True if the writer was made to wait."""
        if self._may_keep_bytes:
            self._held.give(self._holder, self._may_keep_bytes)
        held_back, self.holds_back, self.waits = self.holds_back, False, False
        self._may_keep_bytes, self.deadline_s = 0, None
        return held_back

    def look(self, size_bytes: int, least_bytes: int, deadline_s: float | None) -> None:
        """Enough taken since the last such moment moves the deadline."""
        taken_bytes = self._start_bytes + self._added_bytes - size_bytes
        if taken_bytes - self._mark_bytes >= least_bytes:
            self._mark_bytes, self.deadline_s = taken_bytes, deadline_s
