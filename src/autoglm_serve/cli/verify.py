"""`autoglm verify`: does an address serve its model rightly? Any OpenAI-compatible address, ours or not."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from autoglm_serve.core.errors import ConfigError, ExitCode, Unreachable
from autoglm_serve.probe.upstream import RemoteModel
from autoglm_serve.verify.finding import CheckOutcome, Finding
from autoglm_serve.verify.report import as_json, as_junit, line, summary
from autoglm_serve.verify.run import CHECKS, verify
from autoglm_serve.verify.served_model import ServedModel
from autoglm_serve.verify.server import AskedServer, NotAnswered

_LONG_TOKENS = 6000


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--url",
        default=os.environ.get("OPENAI_BASE_URL") or "http://127.0.0.1:8000",
        help="What is asked. [$OPENAI_BASE_URL, else http://127.0.0.1:8000]",
    )
    add("--model", metavar="NAME", help="The model to ask for. [the first that is listed]")
    add("--api-key", default="EMPTY", metavar="KEY", help="The API key to send. [EMPTY]")
    add("--timeout", type=float, default=300.0, metavar="S", help="Longest life of one request. [300]")
    add(
        "--long-context",
        type=int,
        default=_LONG_TOKENS,
        metavar="N",
        help=f"Try a prompt of about so many tokens. [{_LONG_TOKENS}]",
    )
    add("--json", action="store_true", help="Print JSON.")
    add("--junit", type=Path, metavar="FILE", help="Write JUnit's XML, too.")


def run(args: Namespace) -> int:
    address = AskedServer(url=args.url, key=args.api_key, timeout_s=args.timeout)
    served = _served(address)
    subject = ServedModel(
        address=address, served=served, name=args.model or served[0].name, long_tokens=args.long_context
    )
    if not args.json:
        print(f"{subject.name} at {args.url}: {len(CHECKS)} checks")
    findings = verify(subject, told=_nothing if args.json else _tell)
    if args.json:
        print(as_json(args.url, subject.name, findings))
    else:
        print(summary(findings))
    if args.junit:
        _write(args.junit, as_junit(args.url, subject.name, findings))
    failed = any(one.outcome is CheckOutcome.FAILED for one in findings)
    return ExitCode.FAILED if failed else ExitCode.OK


def _served(address: AskedServer) -> tuple[RemoteModel, ...]:
    try:
        served = address.served()
    except NotAnswered as error:
        raise Unreachable(
            f"{address.url} does not say which models it serves.",
            why=str(error),
            next_step="Start a service with `autoglm serve`, or name an address with --url.",
        ) from error
    if not served:
        raise Unreachable(
            f"{address.url} serves no model.", next_step="Wait until it has one, or name another address."
        )
    return served


def _tell(finding: Finding) -> None:
    print(line(finding), flush=True)


def _nothing(finding: Finding) -> None:
    print(f"{finding.check}: {finding.outcome}", file=sys.stderr, flush=True)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written.", why=str(error), next_step="Name another file."
        ) from error
