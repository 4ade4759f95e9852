"""`autoglm restart`: restart the parts of a running service one by one, while it serves on."""

from argparse import ArgumentParser, Namespace
from typing import Any

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import ADDRESS, RunningService
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only=ADDRESS, words=ADDRESS)
    parser.add_argument(
        "--replica",
        action="append",
        metavar="ID",
        help="Restart this replica (r0, or 0); may be given again. [every replica]",
    )
    parser.add_argument(
        "--workers",
        action="store_true",
        help="Restart the gateway's workers; replicas only where --replica names them.",
    )


def run(args: Namespace, options: Options) -> int:
    service = RunningService.of(options)
    service.ask("POST", "/admin/restart", wanted(args))
    seen = 0
    while True:
        told = service.ask("GET", f"/admin/steps?after={seen}")
        for line in told["lines"]:
            print(line, flush=True)
        seen += len(told["lines"])
        if told["good"] is not None and not told["lines"]:
            return ExitCode.OK if told["good"] else ExitCode.FAILED


def wanted(args: Namespace) -> dict[str, Any]:
    """The body that asks for it."""
    named = [f"r{name}" if name.isdigit() else name for name in args.replica or ()]
    return {"replicas": named if named or args.workers else None, "workers": args.workers}
