"""Between two control planes: the one that leaves does nothing until the next is in control.

Should that one end first, whatever made it end, the one before goes on: there is never nobody. While it
stands by it is stopped as a whole, so that no two of them act at a time.
"""

import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from autoglm_serve.core.errors import ExitCode
from autoglm_serve.launch.state_dir import StateDir

_MARK = "leaving"
_LOOK_MS = 50
_STOPS = (signal.SIGTERM, signal.SIGINT)


def take_control(state_dir: Path) -> None:
    """Said by who is in control now: nobody has to stand by any more."""
    with suppress(OSError):
        (state_dir / _MARK).unlink(missing_ok=True)


def stand_by(lock: StateDir, successor: int, hear_signals: Callable[[], None]) -> bool:
    """Lets this process have the state directory. True once it is in control; false if it ends before.

    Blocks everything. `hear_signals` puts the handlers back. A stop meanwhile ends this process at once; when
    the other has ended it is the stop of the service, and heard as soon as that goes on.
    """
    mark = lock.path / _MARK
    try:
        pidfd = os.pidfd_open(successor)
    except ProcessLookupError:
        return False
    try:
        mark.touch(mode=0o600)
        told: list[int] = []
        for number in _STOPS:
            signal.signal(number, lambda number, frame: told.append(number))
        lock.let_go()
        if _in_control(mark, pidfd, told):
            return True
        lock.take_back()
        hear_signals()
        for stop in told:
            signal.raise_signal(stop)
        return False
    finally:
        os.close(pidfd)
        take_control(lock.path)


def _in_control(mark: Path, pidfd: int, told: Sequence[int]) -> bool:
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    while mark.exists():
        if ended.poll(_LOOK_MS):
            return not mark.exists()
        if told:
            os._exit(ExitCode.OK)
    return True
