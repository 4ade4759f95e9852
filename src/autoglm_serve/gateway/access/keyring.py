"""The keys that a worker knows, read again whenever their files change.

Whatever happens to the files, nobody gets in who could not before: what is broken or gone leaves the keys as
they were, and a worker that has once had keys asks for them until it ends.
"""

import logging
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.access.credentials import presented, unauthorized
from autoglm_serve.gateway.access.files import signature
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.keys import keys_file
from autoglm_serve.keys.key import Key, KeysError, Scope
from autoglm_serve.keys.table import NO_KEYS, KeyTable

log = logging.getLogger(__name__)

_Signature = tuple[tuple[int, ...], ...]


class Keyring:
    """Owns the table of keys of one worker."""

    def __init__(self, paths: tuple[Path, ...] = (), *, required: bool = False) -> None:
        """With `required` a request needs a key though there may be none."""
        self._paths = paths
        self._seen: _Signature = ()
        self._reading: Future[KeyTable] | None = None
        self.table = NO_KEYS
        self.guarded = required
        """A request needs a key."""
        self.on_change: Callable[[KeyTable], None] = lambda table: None

    def load(self) -> None:
        """Read the files now. What is wrong with them guards the door all the same."""
        self._seen = self._signature()
        try:
            self._take(keys_file.read(self._paths))
        except (KeysError, OSError) as problem:
            self.guarded = True
            self._complain(problem)

    def look(self, loop: AbstractEventLoop, readers: Executor) -> None:
        """Called now and then: read the files again, in another thread, if they are others."""
        if self._reading is not None or (now := self._signature()) == self._seen:
            return
        self._seen = now
        self._reading = loop.run_in_executor(readers, keys_file.read, self._paths)
        self._reading.add_done_callback(self._read)

    def find(self, headers: Mapping[bytes, bytes]) -> Key:
        """The key that comes with these headers. Raises Refusal where there is none that opens anything."""
        secret, now_s = presented(headers), time.time()
        if secret is None:
            raise unauthorized("missing_api_key", _MISSING)
        key = self.table.find(secret, now_s)
        if key is None:
            raise unauthorized("invalid_api_key", "This API key is not known here.")
        why = key.why_not(now_s)
        if why:
            raise unauthorized("invalid_api_key", f"This API key opens nothing: {why}.")
        return key

    def of(self, request: Request, scope: Scope) -> Key | None:
        """Whose request this is, where one needs a key. Raises Refusal for one that does not open this."""
        if not self.guarded:
            return None
        key = self.find(request.headers)
        if scope not in key.scopes:
            raise forbidden(
                f"This API key does not open {request.path[:200]}: it has not the scope '{scope}'."
            )
        if scope is Scope.INFERENCE and not key.opens_path(request.path):
            raise forbidden(f"This API key does not open {request.path[:200]}.")
        return key

    def _read(self, reading: "Future[KeyTable]") -> None:
        self._reading = None
        if reading.cancelled():
            return
        problem = reading.exception()
        if problem is None:
            self._take(reading.result())
        else:
            self._complain(problem)

    def _take(self, table: KeyTable) -> None:
        if not len(table) and self.guarded and len(self.table):
            log.error("the files of keys are empty or gone; the keys known so far stay in force")
            return
        self.table = table
        self.guarded = self.guarded or len(table) > 0
        self.on_change(table)

    def _complain(self, problem: BaseException) -> None:
        log.error("the keys cannot be read, those known so far stay in force: %s", problem)

    def _signature(self) -> _Signature:
        return tuple(map(signature, self._paths))


def forbidden(message: str) -> Refusal:
    return Refusal(403, "not_allowed", message, type=RefusalType.PERMISSION)


_MISSING = (
    "This service wants an API key: send it as 'Authorization: Bearer KEY', or as 'x-api-key' or 'api-key'."
)
