"""`autoglm serve`: start the service and stay until it is told to stop."""

import asyncio
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import NoReturn

import uvloop

from autoglm_serve.cli.parser import add_flags, add_model
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.launch import descriptors
from autoglm_serve.observe import logs

_LAST_LINES_S = 1.0
"""For whoever reads standard error, at the end."""


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    add_flags(parser)
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="Take over from the service that runs on this port, without refusing or cutting a request: its "
        "replicas go on, its gateway workers are restarted one by one. For a new version.",
    )


def run(args: Namespace, options: Options) -> int:
    # Imported here: `--help` needs none of it.
    from rich.console import Console

    from autoglm_serve.cli.screen import LogReporter, TerminalReporter, ThreadedReporter
    from autoglm_serve.config.sources import Reread
    from autoglm_serve.service.boot import serve

    screen = options.log_format == "auto" and sys.stdout.isatty()
    # In a terminal the screen tells the story, and the log only what goes wrong.
    lines = logs.standard_error()
    level = "warning" if screen and options.log_level == "info" else options.log_level
    logs.configure(options.log_format, level, lines)
    descriptors.raise_limit()
    reporter = ThreadedReporter(TerminalReporter(Console())) if screen else LogReporter()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is something to take down

    async def until_stopped() -> NoReturn:
        try:
            status = await serve(
                options,
                reporter,
                Reread(vars(args), os.environ, Path.cwd()),
                takeover=args.takeover,
            )
        except asyncio.CancelledError:  # Ctrl-C before it served
            status = ExitCode.STOPPED_AT_ONCE
        finally:
            reporter.close()
            lines.close(_LAST_LINES_S)
        os._exit(status)  # Python would wait for a thread that downloads a model

    uvloop.run(until_stopped())
