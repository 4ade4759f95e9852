"""`autoglm plan`: how a model would run, here or on hardware that is named, and why. Starts nothing."""

import json
import os
import shlex
from argparse import ArgumentParser, Namespace

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.engines.base import Command
from autoglm_serve.options import Options

OPTIONS = (
    "model", "served_model_name", "engine", "replicas", "max_model_len", "max_num_seqs", "goal", "sessions",
    "target_ttft", "target_tpot", "tp", "pp", "gpus", "dtype", "quantization", "max_num_batched_tokens",
    "gpu_memory_utilization", "max_pixels",
)  # fmt: skip
FIRST_PORT = 8001


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--hardware",
        metavar="GPU[:COUNT][@LINK]",
        help="Plan for this instead of the GPUs here: rtx4090:2, h200:4, l40s:8@pcie. "
        "`list` shows every name.",
    )
    parser.add_argument("--explain", action="store_true", help="Show the ledger, what lost and why.")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="Print the whole decision as JSON.")
    output.add_argument(
        "--emit", choices=("command",), metavar="command", help="Print only the engine's command lines."
    )
    add_flags(parser, only=OPTIONS)


def run(args: Namespace, options: Options) -> int:
    if args.hardware == "list":
        print(_table())
        return ExitCode.OK
    # Imported here: `--help` needs none of it.
    from autoglm_serve import planning
    from autoglm_serve.plan import explain
    from autoglm_serve.plan.document import document

    decision = planning.plan(options, os.environ, hardware=args.hardware)
    commands = [] if decision.chosen is None else _commands(planning.member(decision, options))
    if args.json:
        first = commands[0] if commands else Command(argv=())
        print(json.dumps(document(decision, first.argv, first.env), indent=2, ensure_ascii=False))
        return ExitCode.OK if decision.chosen else ExitCode.NO_PLAN
    if decision.chosen is None:
        if args.explain:
            print(explain.full(decision) + "\n")
        raise planning.no_plan(decision)
    if args.emit:
        print("\n".join(_line(command) for command in commands))
    else:
        print(explain.full(decision) if args.explain else explain.short(decision))
    return ExitCode.OK


def _commands(member: object) -> list[Command]:
    """One command a replica, as `serve` would start it."""
    from autoglm_serve.core.plan import Member
    from autoglm_serve.engines.catalog import ENGINES

    assert isinstance(member, Member)
    engine = ENGINES[member.plan.engine]
    return [engine.command(member, index, FIRST_PORT + index) for index in range(member.plan.replicas)]


def _line(command: Command) -> str:
    variables = [f"{name}={shlex.quote(value)}" for name, value in command.env.items()]
    return " ".join([*variables, shlex.join(command.argv)])


def _table() -> str:
    from autoglm_serve.probe.hardware_table import SPECS

    return "\n".join(
        f"{spec.key:<14}{spec.title:<34}{spec.memory_bytes / 2**30:>6.1f} GiB  "
        f"compute {'.'.join(map(str, spec.compute_capability))}"
        for spec in SPECS
    )
