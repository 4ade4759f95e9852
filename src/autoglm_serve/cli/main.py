"""The `autoglm` command: finds the verb, imports it alone, and turns errors into a few plain lines.

A verb is a module of this package with `add_arguments(parser)` and `run`. It is imported only when it is
asked for, so `autoglm version` does not pay for what `autoglm serve` needs.
"""

import importlib
import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from autoglm_serve import __version__
from autoglm_serve.cli.other_servers import translated
from autoglm_serve.cli.parser import Parser
from autoglm_serve.core.errors import ExitCode, ServeError
from autoglm_serve.core.wording import did_you_mean, speak_any

log = logging.getLogger(__name__)


class VerbModule(Protocol):
    """What a verb's module has. `run` takes the options too where the verb is `with_options`."""

    run: Callable[..., int]

    def add_arguments(self, parser: ArgumentParser) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One thing that `autoglm` can do."""

    name: str
    summary: str
    with_options: bool = False
    """`run(args, options)` with the service's options loaded, instead of `run(args)`."""
    engine_args: bool = False
    """Takes the engine's own flags after a bare `--`."""
    module: str = ""
    """Where it is, if not in a module of its own name."""


VERBS = (
    Verb(name="serve", summary="start the service", with_options=True, engine_args=True),
    Verb(
        name="plan",
        summary="say how a model would run, and why",
        with_options=True,
        engine_args=True,
    ),
    Verb(name="chat", summary="talk to a model in the terminal, with pictures too", with_options=True),
    Verb(name="bench", summary="put a load on any OpenAI-compatible address, and measure"),
    Verb(name="verify", summary="ask any OpenAI-compatible address whether it serves its model rightly"),
    Verb(
        name="doctor",
        summary="say what is wrong with this machine or a service, and what mends it",
        with_options=True,
    ),
    Verb(
        name="compare", summary="ask two addresses the same recorded chats: do they make a phone do the same?"
    ),
    Verb(name="pull", summary="download a model now, to be served later", with_options=True),
    Verb(
        name="models",
        summary="list the models that are here, and which are served",
        with_options=True,
    ),
    Verb(name="status", summary="ask a running service how it is", with_options=True),
    Verb(name="ps", summary="the same as status", with_options=True, module="status"),
    Verb(name="logs", summary="show what replicas and gateway workers have logged", with_options=True),
    Verb(name="restart", summary="restart a service's parts one by one, while it serves", with_options=True),
    Verb(name="stop", summary="stop a running service; requests in flight are finished", with_options=True),
    Verb(name="keys", summary="make, list, replace and revoke API keys", with_options=True),
    Verb(name="usage", summary="show what each key has used", with_options=True),
    Verb(name="config", summary="show every option, its value and where it came from", engine_args=True),
    Verb(name="version", summary="print the version, and those of the engines found"),
    Verb(name="completion", summary="print a script that completes commands in bash, zsh or fish"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is an `ExitCode`."""
    for stream in (sys.stdout, sys.stderr):
        speak_any(stream)
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except ServeError as error:
        print(f"autoglm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.STOPPED_AT_ONCE
    except BrokenPipeError:  # the reader of our output left: `autoglm config show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return ExitCode.OK
    if argv[0] in ("-V", "--version"):
        print(f"autoglm-serve {__version__}")
        return ExitCode.OK
    verb = next((verb for verb in VERBS if verb.name == argv[0]), None)
    if verb is None:
        hint = did_you_mean(argv[0], [verb.name for verb in VERBS])
        print(f"autoglm: there is no {argv[0]!r}.{hint}\n\n{_overview()}", file=sys.stderr)
        return ExitCode.USAGE
    return _run_verb(verb, argv[1:])


def _run_verb(verb: Verb, argv: list[str]) -> int:
    args = _parse(parser_of(verb), argv, verb)
    try:
        return _called(verb, _module(verb), args)
    except ServeError as error:
        if getattr(args, "json", False):
            _print_json(error)
        raise


def parser_of(verb: Verb) -> Parser:
    """What a verb understands."""
    parser = Parser(
        prog=f"autoglm {verb.name}",
        usage=f"autoglm {verb.name} [flags]" + (" [-- flags of the engine]" if verb.engine_args else ""),
        description=verb.summary[0].upper() + verb.summary[1:] + ".",
        engine_args=verb.engine_args,
    )
    _module(verb).add_arguments(parser)
    return parser


def _module(verb: Verb) -> VerbModule:
    return cast("VerbModule", importlib.import_module(f"autoglm_serve.cli.{verb.module or verb.name}"))


def _called(verb: Verb, module: VerbModule, args: Namespace) -> int:
    if not verb.with_options:
        return module.run(args)
    from autoglm_serve.config.sources import load  # here: pydantic is for the verbs that need it

    options, provenance = load(vars(args), os.environ, Path.cwd())
    if provenance.unknown:
        from autoglm_serve.observe import logs

        logs.configure(options.log_format, "warning", logs.AtOnce())
        for line in provenance.unknown:
            log.warning(line)
    return module.run(args, options)


def _print_json(error: ServeError) -> None:
    """Who asked for JSON reads it on stdout in any case; the plain lines go to stderr as always."""
    import json  # here: it is seldom needed

    told = {"problem": error.what, "why": error.why or None, "next_step": error.next_step or None}
    print(json.dumps(told, indent=2, ensure_ascii=False))


def _parse(parser: Parser, argv: list[str], verb: Verb) -> Namespace:
    """Parse; what follows a bare `--` is the engine's."""
    if not verb.engine_args:
        return parser.parse_strictly(argv)
    if "--" not in argv:
        return parser.parse_strictly(translated(argv))
    cut = argv.index("--")
    args = parser.parse_strictly(translated(argv[:cut]))
    args.engine_args = tuple(argv[cut + 1 :])
    return args


def _overview() -> str:
    width = max(len(verb.name) for verb in VERBS)
    verbs = "\n".join(f"  autoglm {verb.name:<{width}}  {verb.summary}" for verb in VERBS)
    return (
        "One command puts AutoGLM-Phone-9B, or any vision-language model, into production.\n\n"
        f"{verbs}\n\n"
        "`autoglm VERB --help` explains a verb. With no flags at all, `autoglm serve` serves the bundled\n"
        "demo model at http://127.0.0.1:8000/v1."
    )


if __name__ == "__main__":
    sys.exit(main())
