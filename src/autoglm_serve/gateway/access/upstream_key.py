"""The key that this service has at servers which it did not start: from a file, read when it changes."""

import logging
from pathlib import Path

from autoglm_serve.gateway.access.files import signature
from autoglm_serve.gateway.wire.http import Headers

log = logging.getLogger(__name__)

_MOST_BYTES = 4096


class UpstreamKey:
    """Owns the header that the key becomes; none without a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self.headers: Headers = ()
        self.look()

    def look(self) -> None:
        """Called now and then."""
        if self._path is None or (now := signature(self._path)) == self._seen:
            return
        self._seen = now
        try:
            key = self._path.read_bytes()[:_MOST_BYTES].strip()
        except OSError as problem:
            log.error("the key for upstreams stays as it was: %s", problem)
            return
        if key and key.isascii() and key.decode().isprintable():
            self.headers = ((b"authorization", b"Bearer " + key),)
        else:
            log.error("%s holds no key for upstreams: it has to be one line of text", self._path)
