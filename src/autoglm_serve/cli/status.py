"""`autoglm status`: ask a running service how it is."""

import http.client
import json
from argparse import ArgumentParser, Namespace
from typing import Any, cast

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.table import table
from autoglm_serve.core.errors import ExitCode, Unreachable
from autoglm_serve.options import Options

_TIMEOUT_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only={"host", "port"})
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")


def run(args: Namespace, options: Options) -> int:
    host = "127.0.0.1" if options.host in ("0.0.0.0", "") else options.host
    host = "::1" if host == "::" else host
    status = ask(host, options.port)
    if args.json:
        print(json.dumps(status, indent=2, ensure_ascii=False))
    else:
        print(render(status))
    ready = any(replica["state"] == "ready" for replica in status["replicas"])
    return ExitCode.OK if ready else ExitCode.FAILED


def ask(host: str, port: int) -> dict[str, Any]:
    """The status of the service at this address. Raises Unreachable."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/admin/status")
        reply = connection.getresponse()
        body = json.loads(reply.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(
            f"No autoglm service answers at http://{host}:{port}.",
            why=str(error),
            next_step="Start one with `autoglm serve`, or name its address with --host and --port.",
        ) from error
    finally:
        connection.close()
    if reply.status != 200:
        said = body.get("error", {}).get("message", "") if isinstance(body, dict) else ""
        raise Unreachable(
            f"The service at http://{host}:{port} does not tell its status.",
            why=said or f"it answered {reply.status}",
            next_step="Ask from the machine that it runs on; look at its log.",
        )
    return cast("dict[str, Any]", body)


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
