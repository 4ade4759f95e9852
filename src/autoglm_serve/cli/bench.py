"""`autoglm bench`: a load against any OpenAI-compatible address, and what came of it."""

import asyncio
import json
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

from autoglm_serve.bench.figures import Figures, Objectives
from autoglm_serve.bench.load import LoadPlan, LoadRun
from autoglm_serve.bench.load import run as send
from autoglm_serve.bench.page import HEAD, Row, cells, page
from autoglm_serve.bench.paired import ratios
from autoglm_serve.bench.workloads import Agent, Questions, Replay, RequestShape, Screens, Sessions, Speech
from autoglm_serve.cli.running_service import RunningService
from autoglm_serve.cli.table import table
from autoglm_serve.core.errors import ConfigError, ExitCode

WORKLOADS = ("agent", "chat", "vision", "speech", "replay")
_TOLD_EVERY_S = 1.0


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="What is asked. [http://127.0.0.1:8000]")
    add("--model", metavar="NAME", help="The model to ask for. [the first that is served]")
    add("--api-key", default="EMPTY", metavar="KEY", help="The API key to send. [EMPTY]")
    add("--workload", choices=WORKLOADS, default="agent", help="What sessions ask. [agent]")
    add("--file", type=Path, metavar="FILE", help="The sound of speech, or the recorded requests of replay.")
    add("--speed", type=float, default=1.0, metavar="X", help="Replay X times as fast. [1]")
    load = parser.add_argument_group("Load")
    add = load.add_argument
    add("--sessions", type=int, default=8, metavar="N", help="Sessions under way at once. [8]")
    add(
        "--rate",
        type=float,
        metavar="R",
        help="Requests a second, by chance (Poisson). [closed loop]",
    )
    add("--seconds", type=float, default=30.0, metavar="S", help="Time that is counted. [30]")
    add("--warm-up", type=float, default=5.0, metavar="S", help="Time before, in which sessions start. [5]")
    add("--think-time", type=float, default=0.0, metavar="S", help="Pause of a session between steps. [0]")
    add("--timeout", type=float, default=300.0, metavar="S", help="Longest life of one request. [300]")
    add("--seed", type=int, default=0, metavar="N", help="The same seed asks the same. [0]")
    shape = parser.add_argument_group("Shape of a request")
    add = shape.add_argument
    add("--image", default="1080x2400", metavar="WxH", help="Pixels of a screenshot. [1080x2400]")
    add("--image-format", choices=("png", "jpeg"), default="png", help="jpeg needs Pillow. [png]")
    add("--system-tokens", type=int, default=1_900, metavar="N", help="About so long a system prompt. [1900]")
    add("--prompt-tokens", type=int, default=40, metavar="N", help="About so long a question. [40]")
    add("--output-tokens", type=int, default=128, metavar="N", help="Bound of an answer, on average. [128]")
    add("--exact-length", action="store_true", help="Ask for answers as long as that (ignore_eos).")
    add("--task-steps", type=int, default=10, metavar="N", help="Steps of a task of an agent. [10]")
    ways = parser.add_argument_group("Several runs")
    ways.add_argument("--sweep", metavar="sessions=N,N", help="One run for each number of sessions.")
    ways.add_argument("--compare", metavar="URL2", help="Take turns between --url and this, and compare.")
    ways.add_argument("--rounds", type=int, default=3, metavar="N", help="Turns of each, with --compare. [3]")
    goals = parser.add_argument_group("Objectives")
    goals.add_argument("--objective-ttft", type=float, metavar="S", help="A good step's first token. [none]")
    goals.add_argument("--objective-tpot", type=float, metavar="S", help="A good step's time a token. [none]")
    goals.add_argument("--objective-step", type=float, metavar="S", help="A good step's whole time. [none]")
    goals.add_argument(
        "--max-errors", type=float, default=0.01, metavar="SHARE", help="Beyond: exit 1. [0.01]"
    )
    told = parser.add_argument_group("Report")
    told.add_argument("--json", action="store_true", help="Print JSON.")
    told.add_argument("--html", type=Path, metavar="FILE", help="Write a page with plots.")


def run(args: Namespace) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C keeps what there is
    for url in filter(None, (args.url, args.compare)):
        _require_port(url)
    name = args.model or RunningService(args.url, args.api_key).first_model()
    workload = _workload(args, name)
    plan = LoadPlan(
        url=args.url,
        key=args.api_key,
        sessions=args.sessions,
        rate_per_s=args.rate,
        warm_up_s=args.warm_up,
        seconds=args.seconds,
        timeout_s=args.timeout,
        seed=args.seed,
        objectives=Objectives(
            ttft_s=args.objective_ttft, tpot_s=args.objective_tpot, step_s=args.objective_step
        ),
    )
    rows = _runs(args, plan, workload)
    _report(args, name, rows)
    worst = max((row.figures.error_share for row in rows), default=1.0)
    return ExitCode.OK if rows and worst <= args.max_errors else ExitCode.FAILED


def _require_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise ConfigError(
            f"{url} is no address.", why=str(error), next_step="Write it as http://HOST:PORT."
        ) from error


def _workload(args: Namespace, name: str) -> Sessions:
    width, height = _pixels(args.image)
    shape = RequestShape(
        model=name,
        seed=args.seed,
        system_tokens=args.system_tokens,
        text_tokens=args.prompt_tokens,
        output_tokens=args.output_tokens,
        width_px=width,
        height_px=height,
        image_format=args.image_format,
        steps=args.task_steps,
        think_s=args.think_time,
        exact_length=args.exact_length,
    )
    match args.workload:
        case "agent":
            return Agent(shape)
        case "chat":
            return Questions(shape=shape)
        case "vision":
            return Questions(shape=shape, screens=Screens(shape))
        case "speech":
            return Speech(model=name, file=_named_file(args))
        case _:
            return Replay(_named_file(args), model=name, speed=args.speed)


def _pixels(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if width.isdigit() and height.isdigit() and 28 <= int(width) <= 16_384 and 28 <= int(height) <= 16_384:
        return int(width), int(height)
    raise ConfigError(f"--image: {text!r} is no size.", next_step="Write it as 1080x2400, each 28 to 16384.")


def _named_file(args: Namespace) -> Path:
    if args.file is None:
        raise ConfigError(f"The workload {args.workload} needs a file.", next_step="Name it with --file.")
    return Path(args.file)


def _runs(args: Namespace, plan: LoadPlan, workload: Sessions) -> list[Row]:
    """Every run that was asked for; interrupted, those that there are, the last as far as it came."""
    if isinstance(workload, Replay):
        plan = replace(plan, sessions=len(workload), warm_up_s=0.0, seconds=float("inf"))
    rows: list[Row] = []
    for number, (label, each) in enumerate(_plans(args, plan)):
        figures, whole = _one(label, each, workload)
        rows.append(Row(label=label, x=float(each.sessions if args.sweep else number + 1), figures=figures))
        if not whole:
            print("interrupted: what follows is what there was by then", file=sys.stderr)
            break
    return rows


def _plans(args: Namespace, plan: LoadPlan) -> list[tuple[str, LoadPlan]]:
    if args.sweep:
        what, _, numbers = args.sweep.partition("=")
        counts = [int(number) for number in numbers.split(",") if number.isdigit() and int(number)]
        if what != "sessions" or not counts:
            raise ConfigError(f"--sweep: {args.sweep!r} is not known.", next_step="--sweep sessions=1,8,32")
        return [(f"{count} sessions", replace(plan, sessions=count)) for count in counts]
    if args.compare:
        other = replace(plan, url=args.compare)
        turns = [[(f"{one.url} #{turn}", one) for one in (plan, other)] for turn in range(1, args.rounds + 1)]
        return [each for turn in turns for each in turn]
    return [(f"{plan.sessions} sessions", plan)]


def _one(label: str, plan: LoadPlan, workload: Sessions) -> tuple[Figures, bool]:
    """The figures of one run, and whether it came to its end."""
    told = _RunLine(label)
    try:
        figures = asyncio.run(send(plan, workload, on_tick=told.tick)).figures()
        return figures, True
    except KeyboardInterrupt:
        if told.latest is None:
            raise
        return told.latest.figures(), False
    finally:
        told.end()


class _RunLine:
    """One line on stderr, written over in a terminal and now and then elsewhere."""

    def __init__(self, label: str) -> None:
        self.latest: LoadRun | None = None
        self._label = label
        self._told_s = 0.0
        self._terminal = sys.stderr.isatty()

    def tick(self, state: LoadRun) -> None:
        self.latest = state
        now_s = state.now_s()
        if now_s - self._told_s < (_TOLD_EVERY_S if self._terminal else 10 * _TOLD_EVERY_S):
            return
        self._told_s = now_s
        failed = sum(1 for one in state.samples if one.error)
        line = f"{self._label}: {now_s:.0f} s, {len(state.samples)} answered, {state.under_way} under way"
        print(f"{line}, {failed} failed", end="\r" if self._terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)


def _report(args: Namespace, name: str, rows: Sequence[Row]) -> None:
    compared = ratios(
        [row.figures for row in rows[::2]] if args.compare else [],
        [row.figures for row in rows[1::2]] if args.compare else [],
    )
    told = f"{args.workload} of {name} at {args.url}, seed {args.seed}"
    if args.html:
        args.html.write_text(page(f"autoglm bench: {args.workload}", told, rows), encoding="utf-8")
    if args.json:
        runs = [{"label": row.label, **asdict(row.figures)} for row in rows]
        print(json.dumps({"told": told, "runs": runs, "ratios": [asdict(one) for one in compared]}, indent=2))
        return
    print(table(("run", *HEAD), [(row.label, *cells(row.figures)) for row in rows]))
    for one in compared:
        spread = f"{one.lowest:.3f} to {one.highest:.3f}"
        print(f"{one.what}: {one.median:.3f} of the first ({spread}; {one.better} is better)")
    for row in rows:
        _warn(row)


def _warn(row: Row) -> None:
    for kind, count in sorted(row.figures.errors_by_kind.items(), key=lambda item: -item[1]):
        print(f"{row.label}: {count} times: {kind}")
    client = row.figures.client
    if client.is_limit:
        print(
            f"{row.label}: this client may be the limit: its loop was {client.lag_p99_s * 1000:.0f} ms late "
            f"(p99) and used {client.cpu_share:.0%} of a core"
        )
