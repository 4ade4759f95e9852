"""Where `autoglm` and `python -m autoglm_serve` begin: Ctrl-C ends them quietly, also while they import."""

import sys

_ELSEWHERE = (
    "autoglm: the service runs on Linux, and this is {system}.\n"
    "Why: it starts, watches and ends processes by what the Linux kernel tells of them.\n"
    "Next: on Windows install it in WSL2, which has GPUs too; on macOS in a Linux container or machine. "
    "Clients need nothing of it: they ask over HTTP, from any system.\n"
)
_SYSTEMS = {"win32": "Windows", "cygwin": "Windows", "darwin": "macOS"}
_ASKS_ONLY = frozenset(
    {"bench", "chat", "compare", "completion", "plan", "verify", "version", "--version", "--help", "-h"}
)


def runs_here(platform: str, verb: str) -> bool:
    """The verb can run on this system: all on Linux; elsewhere, but on Windows, those that only ask."""
    return platform == "linux" or (platform not in ("win32", "cygwin") and verb in _ASKS_ONLY)


def main() -> int:
    """Run the command line.

    An exception in the middle of an import leaves tracebacks, and has crashed native modules (uvloop). So
    until a verb has something to take down, and asks for KeyboardInterrupt, Ctrl-C ends the process at once.
    """
    if not runs_here(sys.platform, "".join(sys.argv[1:2])):
        sys.stderr.write(_ELSEWHERE.format(system=_SYSTEMS.get(sys.platform, sys.platform)))
        return 3  # core.errors.ExitCode.CONFIG
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
