"""`autoglm status`: ask a running service how it is."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from autoglm_serve.cli.admin import Admin
from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.table import table
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.options import Options

_TIMEOUT_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only={"host", "port"})
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")


def run(args: Namespace, options: Options) -> int:
    status = Admin(options.host, options.port).ask("GET", "/admin/status", timeout_s=_TIMEOUT_S)
    if args.json:
        print(json.dumps(status, indent=2, ensure_ascii=False))
    else:
        print(render(status))
    ready = any(replica["state"] == "ready" for replica in status["replicas"])
    return ExitCode.OK if ready else ExitCode.FAILED


def render(status: dict[str, Any]) -> str:
    """The status as a person reads it."""
    names = ", ".join(name for model in status["models"] for name in model["names"]) or "nothing"
    rows = [
        (
            replica["id"],
            replica["model"],
            replica["engine"],
            replica["state"],
            str(replica["pid"] or "-"),
            str(replica["port"] or "-"),
            ",".join(map(str, replica["gpus"])) or "-",
            str(replica["in_flight"]),
            str(replica["restarts"]),
            (replica["last_exit"] or {}).get("summary", "-"),
        )
        for replica in status["replicas"]
    ]
    head = (
        "replica",
        "model",
        "engine",
        "state",
        "pid",
        "port",
        "gpus",
        "in flight",
        "restarts",
        "last exit",
    )
    return f"{status['url']}  autoglm-serve {status['version']}  serving {names}\n\n{table(head, rows)}"
