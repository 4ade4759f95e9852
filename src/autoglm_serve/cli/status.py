"""`autoglm status`: ask a running service how it is."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import ADDRESS, RunningService
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.status import ReplicaReport, ServiceStatus

_TIMEOUT_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only=ADDRESS, words=ADDRESS)
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")


def run(args: Namespace, options: Options) -> int:
    status, said = RunningService.of(options).status(timeout_s=_TIMEOUT_S)
    if args.json:
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        print(render(status))
    ready = any(replica.state is ReplicaState.READY for replica in status.replicas)
    return ExitCode.OK if ready else ExitCode.FAILED


def render(status: ServiceStatus) -> str:
    """The status as a person reads it."""
    names = ", ".join(name for model in status.models for name in model.names) or "nothing"
    first = f"{status.url}  autoglm-serve {status.version}  serving {names}"
    return "\n\n".join(
        [first, table(_HEAD, [_row(replica) for replica in status.replicas]), *_memory(status)]
    )


_HEAD = ("replica", "model", "engine", "state", "pid", "gpus", "in flight", "restarts", "last exit")


def _row(replica: ReplicaReport) -> tuple[str, ...]:
    return (
        replica.id,
        replica.model,
        replica.engine,
        replica.state,
        str(replica.pid or "-"),
        ",".join(map(str, replica.gpus)) or "-",
        str(replica.in_flight),
        str(replica.restarts),
        replica.last_exit.summary if replica.last_exit else "-",
    )


def _memory(status: ServiceStatus) -> Iterator[str]:
    """What each model's plan expected of a GPU's memory, beside what one of its replicas reports."""
    from autoglm_serve.plan.explain import ledger_table

    for model in status.models:
        said = (each.memory for each in status.replicas if each.model == model.names[0] and each.memory)
        measured = next(said, None)
        if model.ledger and measured:
            yield "\n".join(ledger_table(model.ledger, measured))
