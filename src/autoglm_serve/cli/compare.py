"""`autoglm compare`: the same recorded chats asked of two addresses; do they make a phone do the same?"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from autoglm_serve.cli.running_service import RunningService
from autoglm_serve.cli.table import table
from autoglm_serve.core.errors import ConfigError, ExitCode
from autoglm_serve.verify import marked
from autoglm_serve.verify.comparison import Comparison, Pair, Side, compare, counted, first_of
from autoglm_serve.verify.recording import read
from autoglm_serve.verify.server import AskedServer

_TOLERANCE = 10.0
_SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--replay", type=Path, required=True, metavar="PLACE", help="Recorded requests: a file or a folder.")
    add("--url", action="append", required=True, metavar="URL", help="An address; give two.")
    add("--model", action="append", metavar="NAME", help="Whom to ask at each. [the first that is served]")
    add("--api-key", action="append", metavar="KEY", help="The key to send to each. [EMPTY]")
    add("--timeout", type=float, default=300.0, metavar="S", help="Longest life of one request. [300]")
    add(
        "--tolerance",
        type=float,
        default=_TOLERANCE,
        metavar="N",
        help=f"Taps so near are one, in thousandths of the screen. [{_TOLERANCE:g}]",
    )
    add("--at-least", type=float, default=1.0, metavar="SHARE", help="Fewer that agree: exit 1. [1]")
    add("--as-recorded", action="store_true", help="Sample as was recorded. [temperature 0]")
    add("--pictures", type=Path, metavar="FOLDER", help="Draw both taps where they differ. Needs Pillow.")
    add("--json", action="store_true", help="Print JSON.")


def run(args: Namespace) -> int:
    chats = read(args.replay)
    first, second = _sides(args)
    pairs: list[Pair] = []
    for pair in compare(chats, first, second, tolerance=args.tolerance, as_recorded=args.as_recorded):
        pairs.append(pair)
        _progress(len(pairs), len(chats))
    found = counted(pairs)
    drawn = _draw(args.pictures, pairs) if args.pictures else 0
    if args.json:
        differ = [_plain(pair) for pair in pairs if not pair.agreement.same]
        print(json.dumps({**asdict(found), "differ": differ}, ensure_ascii=False, indent=2))
    else:
        _tell(found, pairs, drawn)
    return ExitCode.OK if found.share >= args.at_least else ExitCode.FAILED


def _sides(args: Namespace) -> tuple[Side, Side]:
    if len(args.url) != 2:
        raise ConfigError(
            f"{len(args.url)} address is named; two are compared.", next_step="Give --url twice."
        )
    sides = [
        Side(
            server=AskedServer(url=url, key=_of(args.api_key, index) or "EMPTY", timeout_s=args.timeout),
            model=_of(args.model, index) or RunningService(url, _of(args.api_key, index)).first_model(),
        )
        for index, url in enumerate(args.url)
    ]
    return sides[0], sides[1]


def _of(given: list[str] | None, index: int) -> str | None:
    """The one for this address, where one was given for each; the only one, where there is one."""
    if not given:
        return None
    return given[min(index, len(given) - 1)]


def _progress(done: int, of: int) -> None:
    terminal = sys.stderr.isatty()
    if terminal or done == of or done % max(1, of // 10) == 0:
        print(f"{done} of {of}", end="\r" if terminal and done < of else "\n", file=sys.stderr, flush=True)


def _draw(folder: Path, pairs: Sequence[Pair]) -> int:
    if not marked.can_draw():
        raise ConfigError("Drawing needs Pillow.", next_step="pip install pillow, or leave out --pictures.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return sum(
            marked.draw(pair, folder / f"{number:04d}.png")
            for number, pair in enumerate(pairs)
            if not pair.agreement.same
        )
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written.", why=str(error), next_step="Name another."
        ) from error


def _plain(pair: Pair) -> dict[str, object]:
    return {
        "where": pair.chat.where,
        "how": pair.agreement.how,
        "distance": pair.agreement.distance,
        "first": pair.first.problem or pair.first.text,
        "second": pair.second.problem or pair.second.text,
    }


def _tell(found: Comparison, pairs: Sequence[Pair], drawn: int) -> None:
    print(f"{found.same} of {found.pairs} make a phone do the same ({found.share:.1%})")
    print(table(("how", "count"), [(how, str(count)) for how, count in found.ways]))
    if found.distance_p50 is not None:
        print(f"taps apart, in thousandths: {found.distance_p50:.1f} (p50), {found.distance_p99:.1f} (p99)")
    if found.latency_ratio is not None:
        print(f"seconds of the second against the first, for the same chat: {found.latency_ratio:.2f} (p50)")
    for pair in first_of(pairs, _SHOWN):
        told = _plain(pair)
        print(f"\n{told['where']}: {told['how']}\n  first:  {told['first']}\n  second: {told['second']}")
    if drawn:
        print(f"\n{drawn} pictures were drawn: the first's tap blue, the second's red")
