"""Files that no other account may read, whatever the umask, and that are never somebody else's link."""

import os
from pathlib import Path


def private(path: str, flags: int) -> int:
    """An opener for `open`."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def replace_whole(path: Path, data: bytes) -> None:
    """Put this in place of what is there: whoever reads, and whoever comes after a kill or a loss of power,
    finds one or the other. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb", opener=private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
