"""`autoglm status`: ask a running service how it is."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from autoglm_serve.cli.admin import ADDRESS, Admin
from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode

_TIMEOUT_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only=ADDRESS, words=ADDRESS)
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
    first = f"{status['url']}  autoglm-serve {status['version']}  serving {names}"
    return "\n\n".join([first, table(head, rows), *_memory(status)])


def _memory(status: dict[str, Any]) -> Iterator[str]:
    """What each model's plan expected of a GPU's memory, beside what one of its replicas reports."""
    from autoglm_serve.core.ledger import Badge, Ledger, MeasuredLedger
    from autoglm_serve.plan.explain import ledger_table

    for model in status["models"]:
        said = (
            one["memory"] for one in status["replicas"] if one["model"] == model["names"][0] and one["memory"]
        )
        measured = next(said, None)
        if model.get("ledger") and measured:
            ledger = Ledger(**{**model["ledger"], "badge": Badge(model["ledger"]["badge"])})
            yield "\n".join(ledger_table(ledger, MeasuredLedger(**measured)))
