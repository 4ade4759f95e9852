"""By what a request is known again. Pure.

Hashing a large body takes long enough to hold others up, so it is done when it is needed, once, and by who
has the time.
"""

import hashlib

_AT_ONCE_BYTES = 256 * 1024  # hashed in half a millisecond


class Fingerprint:
    """Of one body."""

    __slots__ = ("_body", "_digest", "length")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._digest: bytes | None = None
        self.length = len(body)

    @property
    def digest(self) -> bytes:
        """Equal for equal bodies, and for no others. Of a long one best taken away from the loop."""
        if self._digest is None:
            self._digest = hashlib.blake2b(self._body, digest_size=16).digest()
        return self._digest

    @property
    def takes_long(self) -> bool:
        return self._digest is None and self.length > _AT_ONCE_BYTES
