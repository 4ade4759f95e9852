"""`autoglm plan`: how a model would run, here or on hardware that is named, and why. Starts nothing."""

import json
import os
import shlex
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm_serve.cli import plan_load
from autoglm_serve.cli.parser import add_flags, add_model
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode, NoPlan
from autoglm_serve.engines.base import Command, Listen

if TYPE_CHECKING:
    from autoglm_serve.core.plan import Member
    from autoglm_serve.plan.choose import Decision

OPTIONS = (
    "model", "hub", "served_model_name", "engine", "replicas", "threads", "max_model_len", "max_num_seqs",
    "goal", "sessions", "target_ttft", "target_tpot", "tp", "pp", "gpus", "dtype", "quantization",
    "max_num_batched_tokens", "gpu_memory_utilization", "max_pixels",
)  # fmt: skip
FIRST_PORT = 8001


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--hardware",
        metavar="GPU[/GB][:COUNT][@LINK]",
        help="Plan for this instead of the GPUs here: rtx4090:2, 2x4090, h200:4, l40s:8@pcie, rtx4090/48. "
        "`list` shows every name.",
    )
    parser.add_argument("--explain", action="store_true", help="Show the ledger, what lost and why.")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="Print the whole decision as JSON.")
    output.add_argument(
        "--emit", choices=("command",), metavar="command", help="Print only the engine's command lines."
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="Start one replica of the plan, measure its memory and speed, keep that for later plans, and "
        "plan again.",
    )
    parser.add_argument(
        "--phones",
        action="store_true",
        help="Say how many phones the hardware carries: sessions that are answered within --target-ttft and "
        "--target-tpot [3 and 0.05].",
    )
    parser.add_argument(
        "--engine-version",
        metavar="VERSION",
        help="Plan by the rules of this release of the engine instead of the installed one, or the newest.",
    )
    plan_load.add_arguments(parser)
    model = (
        "What to plan for: a GGUF file, a folder, or a repository on the hub. [zai-org/AutoGLM-Phone-9B; the "
        "bundled demo model with --engine llama_cpp]"
    )
    add_model(parser)
    add_flags(parser, only=OPTIONS, words={"model": model})


def run(args: Namespace, options: Options) -> int:
    if args.hardware == "list":
        print(_table())
        return ExitCode.OK
    # Imported here: `--help` needs none of it.
    from autoglm_serve.deploy import decide, embedded, planning
    from autoglm_serve.plan import explain
    from autoglm_serve.plan.document import document

    with decide.readable():
        if embedded.is_embedded(options):
            return _embedded(args, options)
        try:
            decision = planning.plan(
                _targeted(options, args),
                os.environ,
                hardware=args.hardware,
                load=plan_load.workload(args, options.sessions),
                version=args.engine_version,
            )
        except NoPlan:
            if not args.hardware and not args.json:
                _say_what_serve_does(options)
            raise
    if args.calibrate:
        decision = _calibrated(args, options, decision)
    if args.phones:
        return _phones(args, decision)
    commands = [] if decision.chosen is None else _commands(planning.member(decision, options))
    needed = _needed(decision)
    if args.json:
        first = commands[0] if commands else Command(argv=())
        told = document(decision, first.argv, first.env) | {"needed": needed}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return ExitCode.OK if decision.chosen else ExitCode.NO_PLAN
    if decision.chosen is None:
        if args.explain:
            print(explain.full(decision) + "\n")
        raise planning.no_plan(decision)
    if args.emit:
        print("\n".join(_line(command) for command in commands))
    else:
        print(explain.full(decision) if args.explain else explain.short(decision))
        print(f"needed    {needed['words']}" if needed else "", end="\n" if needed else "")
    return ExitCode.OK


PHONES_TTFT_S, PHONES_TPOT_S = 3.0, 0.05
"""Seconds that a phone waits for the first token and for each after it: a step in ten, where nobody says."""
PHONES_THINK_S = 2.0
"""What a phone takes to act and to send its next screenshot."""


def _targeted(options: Options, args: Namespace) -> Options:
    """With the target and the pause that --phones has where they are not given."""
    if not args.phones:
        return options
    if args.think_time is None:
        args.think_time = PHONES_THINK_S
    if options.target_ttft is not None or options.target_tpot is not None:
        return options
    return replace(options, target_ttft=PHONES_TTFT_S, target_tpot=PHONES_TPOT_S)


def _phones(args: Namespace, decision: "Decision") -> int:
    """How many sessions the hardware carries within the targets."""
    from autoglm_serve.plan import demand, explain
    from autoglm_serve.plan.document import document

    found = demand.phones_carried(decision)
    if found is None or found.chosen is None or found.chosen.predicted is None:
        problem = decision.problem or "not even one phone is answered within the targets"
        raise NoPlan(f"{problem}.", next_step="allow more time (--target-ttft), or name more GPUs")
    phones = found.request.workload.sessions
    if args.json:
        print(json.dumps(document(found) | {"phones": phones}, indent=2, ensure_ascii=False))
        return ExitCode.OK
    speed = found.chosen.predicted
    print(explain.full(found) if args.explain else explain.short(found))
    print(
        f"phones    {phones} at once, each asking {args.think_time:g} s after its answer: first token after "
        f"{speed.ttft_s:.1f} s in the middle, {speed.steps_per_s:.1f} steps a second in all"
    )
    return ExitCode.OK


def _needed(decision: "Decision") -> dict[str, object] | None:
    """How many of these cards meet the targets, where there are targets."""
    from autoglm_serve.plan import demand
    from autoglm_serve.plan.request import Goal

    if decision.request.goal is not Goal.TARGETS:
        return None
    need = demand.gpus_needed(decision)
    title = decision.hardware.gpus[0].title if decision.hardware.gpus else "GPU"
    if need is None or need.decision.chosen is None:
        return {"gpus": None, "words": f"even {demand.MOST_GPUS}x {title} do not meet the targets"}
    plan = need.decision.chosen
    speed = plan.predicted
    assert speed is not None
    words = (
        f"{need.gpus}x {title}: {plan.replicas}x TP{plan.tensor_parallel}"
        f"{f' PP{plan.pipeline_parallel}' if plan.pipeline_parallel > 1 else ''}, TTFT {speed.ttft_s:.2f} s, "
        f"TPOT {speed.tpot_s * 1e3:.1f} ms at {speed.sessions} sessions"
    )
    return {"gpus": need.gpus, "words": words}


def _say_what_serve_does(options: Options) -> None:
    """Without a GPU plan there is still something that `serve` would run, or the reason why not."""
    from autoglm_serve.core.errors import ServeError
    from autoglm_serve.deploy.embedded import embedded_here
    from autoglm_serve.deploy.engine import choose_engine
    from autoglm_serve.engines.base import Place
    from autoglm_serve.plan import explain

    if choose_engine(options).place is not Place.PROCESSOR:
        return
    try:
        member = embedded_here(options)
    except ServeError as problem:
        print(f"`autoglm serve` would not start either: {problem.what}")
        return
    print("`autoglm serve` would run this on the processor:\n")
    print(explain.embedded(member, everything=False) + "\n")


def _embedded(args: Namespace, options: Options) -> int:
    """The plan for llama.cpp, which is a matter of cores and main memory."""
    from autoglm_serve.core.errors import ConfigError
    from autoglm_serve.deploy import embedded
    from autoglm_serve.plan import explain
    from autoglm_serve.plan.document import embedded_document

    for flag, given in (("--hardware", args.hardware), ("--calibrate", args.calibrate)):
        if given:
            raise ConfigError(
                f"{flag} is about GPUs, and llama.cpp (GGUF files) runs on the processor here.",
                next_step="leave it out, or give the model's safetensors to plan for GPUs",
            )
    member = embedded.embedded_here(options)
    warnings = embedded.warnings(options, member)
    commands = _commands(member)
    if args.json:
        first = commands[0]
        found = embedded_document(member, warnings, first.argv, first.env)
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif args.emit:
        print("\n".join(_line(command) for command in commands))
    else:
        print(explain.embedded(member, everything=args.explain))
        print("".join(f"note      {warning}\n" for warning in warnings), end="")
    return ExitCode.OK


def _calibrated(args: Namespace, options: Options, decision: "Decision") -> "Decision":
    """Measure the decision's plan, then decide again with what was learnt."""
    import asyncio

    from autoglm_serve.core.errors import ConfigError
    from autoglm_serve.deploy import calibrate, planning
    from autoglm_serve.engines.catalog import ENGINES
    from autoglm_serve.launch.local import LocalLauncher

    if args.hardware:
        raise ConfigError("--calibrate measures the GPUs that are here.", next_step="leave --hardware out")
    member = planning.member(decision, options)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is a replica to take down
    with tempfile.TemporaryDirectory(prefix="autoglm-calibrate-") as folder:
        ledger, speed = asyncio.run(
            calibrate.measure(
                member,
                ENGINES[member.plan.engine],
                LocalLauncher(Path(folder)),
                decision.request.workload,
                ask=calibrate.ask_once,
                on_progress=lambda step: print(f"  {step.stage}", file=sys.stderr),
            )
        )
    kept = planning.remember(decision, ledger, speed, os.environ)
    print(f"measured: {kept or 'the engine did not report its memory, so nothing was kept'}", file=sys.stderr)
    return planning.plan(options, os.environ)


def _commands(member: "Member") -> list[Command]:
    """One command a replica, as `serve` would start it."""
    from autoglm_serve.engines.catalog import ENGINES
    from autoglm_serve.launch.ports import LOOPBACK

    engine = ENGINES[member.plan.engine]
    return [
        engine.command(member, placement, Listen(host=LOOPBACK, port=FIRST_PORT + number))
        for number, placement in enumerate(member.plan.placements)
    ]


def _line(command: Command) -> str:
    variables = [f"{name}={shlex.quote(value)}" for name, value in command.env.items()]
    return " ".join([*variables, shlex.join(command.argv)])


def _table() -> str:
    from autoglm_serve.probe.gpu_specs import SPECS

    return "\n".join(
        f"{spec.key:<14}{spec.title:<34}{spec.memory_bytes / 2**30:>6.1f} GiB  "
        f"compute {'.'.join(map(str, spec.compute_capability))}"
        for spec in SPECS
    )
