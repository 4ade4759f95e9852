"""`autoglm stop`: ask a running service to end, as Ctrl-C in its terminal would, and wait until it has."""

import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import ADDRESS
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode, Unreachable
from autoglm_serve.launch.state_dir import holder

_LOOK_S = 0.05
_LEAVING_S = 15.0
"""Beyond the time that requests in flight have: for engines that are slow to end."""


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only={"port", "state_dir", "drain_timeout_s"}, words=ADDRESS)
    parser.add_argument(
        "--now", action="store_true", help="Cut the requests in flight instead of letting them finish."
    )


def run(args: Namespace, options: Options) -> int:
    folder = options.state_dir_for(options.port, os.environ)
    pid = holder(folder)
    if pid is None:
        raise Unreachable(
            f"No autoglm service runs on port {options.port}.",
            why=f"Nobody holds its state directory, {folder}.",
            next_step="Name the port that it was started with (--port), or its --state-dir.",
        )
    _signal(pid)
    if args.now:
        _signal(pid)
    return _await_end(folder, pid, options.drain_timeout_s + _LEAVING_S)


def _signal(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile, which is what is wanted
        try:
            os.kill(pid, signal.SIGINT)
        except PermissionError as error:
            raise Unreachable(
                f"The service (pid {pid}) is another user's.",
                next_step="Stop it as the user who started it, or as root.",
            ) from error


def _await_end(folder: Path, pid: int, patience_s: float) -> int:
    until_s = time.monotonic() + patience_s
    while holder(folder) == pid:
        if time.monotonic() > until_s:
            print(f"autoglm stop: pid {pid} has not ended after {patience_s:g} s", file=sys.stderr)
            return ExitCode.FAILED
        time.sleep(_LOOK_S)
    print(f"stopped (pid {pid})")
    return ExitCode.OK
