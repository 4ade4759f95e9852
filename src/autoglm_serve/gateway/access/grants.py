"""Requests with a key while they are served: charged before, settled and booked after, ended with their key.

Owns the worker's end of the quotas and of the books. A request without a key never comes here.
"""

import asyncio
import logging
import time
from pathlib import Path

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.access.credentials import unauthorized
from autoglm_serve.gateway.access.quota_file import Hold, NoRow, QuotaFile, RowBusy
from autoglm_serve.gateway.access.rate_limit import beyond, told
from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.keys.key import Key
from autoglm_serve.keys.quota import Denied, standing
from autoglm_serve.keys.table import KeyTable
from autoglm_serve.usage.daybook import DaybookWriter
from autoglm_serve.usage.record import UsageRecord

log = logging.getLogger(__name__)

_PAUSE_S = 0.002
_PATIENCE_S = 2.0
"""For a row that another worker holds: one that was stopped in the middle is replaced in the end."""


class Grant:
    """One request of a key."""

    __slots__ = ("begun_s", "hold", "key", "refusal", "task")

    def __init__(self, key: Key, hold: Hold | None, begun_s: float) -> None:
        self.key = key
        self.hold = hold
        self.begun_s = begun_s
        self.task = asyncio.current_task()
        self.refusal: Refusal | None = None
        """Why it was ended before its time."""

    @property
    def headers(self) -> Headers:
        if self.hold is None:
            return ()
        return told(standing(self.key.limits, self.hold.charged, self.begun_s))


class Grants:
    """Those of one worker."""

    def __init__(self, state_dir: Path, worker_id: int, workers: int) -> None:
        self._place = (state_dir, worker_id, workers)
        self._quotas: QuotaFile | None = None
        self._daybook = DaybookWriter(state_dir, worker_id)
        self._live: set[Grant] = set()

    async def enter(self, key: Key, tokens: int) -> Grant:
        """Let a request in that is likely to take so many tokens. Raises Refusal."""
        now_s = time.time()
        hold = await self._hold(key, tokens, now_s) if key.limits.any else None
        grant = Grant(key, hold, now_s)
        self._live.add(grant)
        return grant

    def leave(self, grant: Grant, record: UsageRecord, tokens: int) -> None:
        """It is over, and took so many."""
        self._live.discard(grant)
        self._daybook.write(record)
        if grant.hold is not None:
            self._file().settle(grant.key, grant.hold, tokens)

    def keys_changed(self, table: KeyTable) -> None:
        """A key that opens nothing any more opens nothing that has begun either."""
        now_s, good = time.time(), {}
        for grant in self._live:
            key = grant.key
            if key.id not in good:
                good[key.id] = _still_opens(table, key, now_s)
            if not good[key.id] and grant.task is not None and grant.refusal is None:
                grant.refusal = unauthorized(
                    "invalid_api_key", "This API key was revoked or replaced meanwhile."
                )
                grant.task.cancel()

    async def _hold(self, key: Key, tokens: int, now_s: float) -> Hold:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _PATIENCE_S
        while True:
            try:
                held = self._file().take(key, tokens, now_s)
            except RowBusy:
                if loop.time() > until_s:
                    raise _unavailable("another worker does not let go of what is counted") from None
                await asyncio.sleep(_PAUSE_S)
                continue
            except NoRow:
                raise _unavailable("the file of quotas is full") from None
            except OSError as problem:
                raise _unavailable(problem.strerror or str(problem)) from problem
            if isinstance(held, Denied):
                raise beyond(held, tokens)
            return held

    def flush(self) -> None:
        """Called now and then: what requests took in the end counts for the other workers too."""
        if self._quotas is not None:
            self._quotas.flush()

    def _file(self) -> QuotaFile:
        if self._quotas is None:
            self._quotas = QuotaFile(*self._place)
        return self._quotas


def _still_opens(table: KeyTable, key: Key, now_s: float) -> bool:
    now = table.by_digest(key.sha256, now_s)
    return now is not None and now.id == key.id and now.revoked_s is None


def _unavailable(why: str) -> Refusal:
    log.error("a request of a key with limits was refused: %s", why)
    message = f"What this API key has left cannot be counted: {why}. Try again shortly."
    return Refusal(503, "quota_unavailable", message, type=RefusalType.SERVER, retry_after_s=1)
