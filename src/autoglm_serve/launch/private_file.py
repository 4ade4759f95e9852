"""Files that no other account may read, whatever the umask, and that are never somebody else's link."""

import os


def private(path: str, flags: int) -> int:
    """An opener for `open`."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
