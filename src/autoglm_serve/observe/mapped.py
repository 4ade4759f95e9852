"""Files in shared memory: written by one process, read by others, there after both."""

import mmap
import os
from pathlib import Path


def open_mapped(path: Path, size_bytes: int) -> mmap.mmap:
    """The file at `path`, made if need be and of that size, mapped for reading and writing.

    Raises OSError where the disk has no room for it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size != size_bytes:
            os.ftruncate(descriptor, size_bytes)
            os.posix_fallocate(descriptor, 0, size_bytes)  # on a full disk a page without a block is SIGBUS
        return mmap.mmap(descriptor, size_bytes)
    finally:
        os.close(descriptor)
