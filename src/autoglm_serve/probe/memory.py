"""Whether the machine's memory has room for another process."""

import psutil

_MARGIN = 1.5


def has_room_for(pid: int) -> bool:
    """There is memory for another process that grows as large as this one, with a margin."""
    try:
        size_bytes = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return False
    return psutil.virtual_memory().available > _MARGIN * size_bytes
