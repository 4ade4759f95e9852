"""How many files and sockets this process may have open, and what it looks like when they have run out.

A shell, cron and systemd give 1,024, which two of a stream's sockets use up at 512 clients; the hard limit is
usually far above. What is short here is nobody else's fault: no replica and no client is blamed for it.
"""

import errno
import resource

_ENOUGH = 1 << 18
"""Some containers allow a thousand million, and what an engine starts may walk through all of them."""
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


def raise_limit() -> int:
    """Raise the soft limit to the hard one, for this process and what it starts; what may be open then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _ENOUGH if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def is_shortage(error: OSError) -> bool:
    """This machine has no descriptor, port or memory for a socket: the other end has no part in it."""
    return error.errno in _SHORT
