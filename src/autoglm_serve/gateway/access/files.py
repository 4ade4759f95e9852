"""Whether a file is another than before."""

import os
from pathlib import Path


def signature(path: Path) -> tuple[int, ...]:
    """Changes with the file; empty while there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
