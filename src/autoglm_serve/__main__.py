"""Where `autoglm` and `python -m autoglm_serve` begin: Ctrl-C ends them quietly, also while they import."""

import sys


def main() -> int:
    """Run the command line.

    An exception in the middle of an import leaves tracebacks, and has crashed native modules (uvloop). So
    until a verb has something to take down, and asks for KeyboardInterrupt, Ctrl-C ends the process at once.
    """
    stopped_at_once = 130  # core.errors.ExitCode, which is not imported yet
    try:
        import os
        import signal

        signal.signal(signal.SIGINT, lambda number, frame: os._exit(stopped_at_once))
        # The first process of a container hears only what it has a handler for.
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
        if sys.argv[1:2] == ["serve"]:  # it hears of new settings once it can take them
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        from autoglm_serve.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return stopped_at_once


if __name__ == "__main__":
    sys.exit(main())
