"""A process with a family, for tests of how sessions are ended. Run as a script; prints a line when all live.

    python session.py [--ignore-term] [--child] [--daemon] [--bare-daemon] [--leader-leaves]

`--child` starts a second process in the same session that ignores SIGTERM, as an engine core may outlive its
API server. `--daemon` starts one that leaves the session, with a child, and prints the pids of both;
`--bare-daemon` is one that does not even keep the environment. `--leader-leaves` ends the first process right
away and leaves the others behind.
"""

import os
import signal
import subprocess
import sys
import time

DAEMON = ("/bin/sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait")


def main(flags: list[str]) -> None:
    if "--ignore-term" in flags:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--child" in flags and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait()
    for flag, environment in (("--daemon", None), ("--bare-daemon", {"PATH": os.environ["PATH"]})):
        if flag in flags:
            daemon = subprocess.Popen(DAEMON, env=environment, start_new_session=True, stdout=subprocess.PIPE)
            assert daemon.stdout is not None
            sys.stdout.write(f"daemon {daemon.pid} {daemon.stdout.readline().decode()}")
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
