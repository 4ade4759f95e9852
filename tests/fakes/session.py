"""A process with a family, for tests of how sessions are ended. Run as a script; prints a line when all live.

    python session.py [--ignore-term] [--child] [--leader-leaves]

`--child` starts a second process in the same session that ignores SIGTERM, as an engine core may outlive its
API server. `--leader-leaves` ends the first one right away and leaves the child behind.
"""

import os
import signal
import sys
import time


def main(flags: list[str]) -> None:
    if "--ignore-term" in flags:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--child" in flags and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait()
    sys.stdout.write("alive\n")
    sys.stdout.flush()
    if "--leader-leaves" in flags:
        os._exit(3)
    wait()


def wait() -> None:
    """Not for ever: a test that fails leaves nothing behind for long."""
    time.sleep(60)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
