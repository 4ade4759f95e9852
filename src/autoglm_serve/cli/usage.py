"""`autoglm usage`: what each key has used, by day and model, from the books."""

import csv
import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, date, datetime, timedelta

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import state_dir_at
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode, ServeError
from autoglm_serve.usage.books import BOOKS_FILE, Books, BooksError
from autoglm_serve.usage.record import Heading, Used

_WHERE = {
    "usage_db": "The books that the service writes.",
    "port": "The port of the service that is meant, where --usage-db does not say.",
    "state_dir": "Its state directory, where it is not found by the port.",
}
_BY = {"day": "day", "key": "key_id", "owner": "owner", "model": "model"}
_DAYS = 31


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--since", type=_day, metavar="YYYY-MM-DD", help=f"The first day. [{_DAYS} days ago]")
    parser.add_argument("--until", type=_day, metavar="YYYY-MM-DD", help="The last day, UTC. [today]")
    parser.add_argument("--key", metavar="ID", help="Of this key alone. [all]")
    parser.add_argument(
        "--by",
        type=_columns,
        default=tuple(_BY),
        metavar="WHAT[,WHAT]",
        help="Sums by these. [day,key,owner,model]",
    )
    parser.add_argument("--csv", action="store_true", help="Print comma-separated values.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    add_flags(parser, only=_WHERE, words=_WHERE)


def run(args: Namespace, options: Options) -> int:
    now = datetime.now(UTC).date()
    found = read(options, args.since or now - timedelta(days=_DAYS), args.until or now)
    sums = grouped(found, args.by, args.key)
    if args.json:
        rows = [dict(zip(args.by, names, strict=True)) | asdict(used) for names, used in sums.items()]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif args.csv:
        written = csv.writer(sys.stdout, lineterminator="\n")
        written.writerow((*args.by, *_SUMS))
        written.writerows((*map(_harmless, names), *_counts(used)) for names, used in sums.items())
    else:
        print(shown(sums, args.by))
    return ExitCode.OK


def shown(sums: dict[tuple[str, ...], Used], by: tuple[str, ...]) -> str:
    """As a person reads it."""
    if not sums:
        return "No key was used in these days."
    return table((*by, *(name.replace("_", " ") for name in _SUMS)), list(_lines(sums)))


def grouped(
    found: dict[Heading, Used], by: tuple[str, ...], key: str | None = None
) -> dict[tuple[str, ...], Used]:
    """Sums by some of day, key, owner and model."""
    sums: dict[tuple[str, ...], Used] = {}
    for heading, used in found.items():
        if key is None or heading.key_id == key:
            names = tuple(str(getattr(heading, _BY[each])) for each in by)
            sums[names] = sums[names].plus(used) if names in sums else used
    return sums


def read(options: Options, since: date, until: date) -> dict[Heading, Used]:
    """What the books say of these days."""
    running = None if options.state_dir else state_dir_at(options.port)
    folder = running or options.state_dir_for(options.port, os.environ)
    address = options.usage_db or str(folder / BOOKS_FILE)
    books = Books(address)
    if not books.there:
        return {}
    try:
        return books.read(since.isoformat(), until.isoformat())
    except BooksError as problem:
        shown = address.rpartition("@")[2]
        raise ServeError(
            f"The books at {shown} cannot be read.", why=str(problem), next_step="Name them with --usage-db."
        ) from problem


_SUMS = tuple(field.name for field in fields(Used))


def _counts(used: Used) -> tuple[int, ...]:
    return tuple(int(getattr(used, name)) for name in _SUMS)


def _lines(sums: dict[tuple[str, ...], Used]) -> Iterable[tuple[str, ...]]:
    return ((*(name or "-" for name in names), *map(str, _counts(used))) for names, used in sums.items())


def _harmless(name: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    return "'" + name if name[:1] in "=+-@\t" and name else name


def _day(said: str) -> date:
    try:
        return date.fromisoformat(said)
    except ValueError:
        raise ArgumentTypeError(f"{said!r} is no day such as 2026-01-31") from None


def _columns(said: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in said.split(",") if name.strip())
    if not names or not set(names) <= _BY.keys():
        raise ArgumentTypeError(f"{said!r} is not some of {', '.join(_BY)}")
    return tuple(dict.fromkeys(names))
