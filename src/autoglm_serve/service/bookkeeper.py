"""Books what the workers have noted, behind their backs: no request waits for a database.

While the database is away, locked, full or broken the daybooks wait, up to a bound that the daybooks have;
quotas are counted elsewhere and go on.
"""

import asyncio
import logging
import threading
import time
from pathlib import Path

from autoglm_serve.runtime.clock import Clock
from autoglm_serve.usage.books import Books, BooksError
from autoglm_serve.usage.daybook import Daybooks
from autoglm_serve.usage.record import summed

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_COMPLAIN_S = 60.0


class Bookkeeper:
    """Owns the way from daybooks to books."""

    def __init__(self, state_dir: Path, books: Books, clock: Clock) -> None:
        self._daybooks = Daybooks(state_dir)
        self._books = books
        self._clock = clock
        self._service = ""
        self._booked: dict[str, int] | None = None
        """None until the books are known to be good."""
        self._complained_s: float | None = None
        self._one_at_a_time = threading.Lock()

    async def run(self) -> None:
        """Books until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_S)
            if self._daybooks.there:
                await asyncio.to_thread(self.book)

    def book(self) -> None:
        """Book what there is now; what cannot be booked waits, and that is told."""
        if not self._daybooks.there:
            return
        with self._one_at_a_time:  # who is cancelled leaves a thread that still books
            self._book()

    def _book(self) -> None:
        try:
            while self._book_some():
                pass
            self._forget()
        except (BooksError, OSError) as problem:
            self._booked = None
            self._complain(problem)
            return
        if self._complained_s is not None:
            log.info("usage is booked again; nothing was lost")
            self._complained_s = None

    def _book_some(self) -> bool:
        if self._booked is None:
            self._service = self._daybooks.service()
            self._booked = self._books.booked(self._service)
        entries = list(self._daybooks.unread(self._booked))
        if not entries:
            return False
        parts = {entry.daybook: (entry.begin_bytes, entry.end_bytes) for entry in entries}
        sums = summed(record for entry in entries for record in entry.records)
        self._books.book(self._service, sums, parts)
        self._booked |= {daybook: end_bytes for daybook, (_, end_bytes) in parts.items()}
        return True

    def _forget(self) -> None:
        assert self._booked is not None
        done = self._daybooks.forget(self._booked)
        if done:
            self._books.forget(self._service, done)
            for name in done:
                del self._booked[name]

    def _complain(self, problem: Exception) -> None:
        now_s = time.monotonic()
        if self._complained_s is not None and now_s - self._complained_s < _COMPLAIN_S:
            return
        self._complained_s = now_s
        log.error(
            "usage cannot be booked (%s); %d KiB of daybooks wait, requests go on within their limits",
            *(problem, self._daybooks.waiting_bytes >> 10),
        )
