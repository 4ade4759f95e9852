"""`autoglm config`: the options in force with their origins, and the reference that docs/ carries.

In force is what a running service goes by, where one runs; else what it would go by if it were started here.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_serve.cli.parser import add_flags, default_text, value_text
from autoglm_serve.cli.running_service import ADDRESS, RunningService
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Option, Options, Section, declared
from autoglm_serve.config.sources import (
    CLIENT_VARIABLES,
    CONFIG_FILE,
    CONFIG_VARIABLE,
    Provenance,
    Source,
    load,
)
from autoglm_serve.core.errors import Unreachable


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        "autoglm config [show] [--json] [flags of serve] [-- flags of the engine]\n"
        "       autoglm config reference"
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("show", "reference"),
        default="show",
        metavar="show | reference",
        help="show: every value in force and where it came from (the default): of the service that runs at "
        "this address, or, with other flags or without one, of a service that would be started here. "
        "reference: every option explained, as Markdown.",
    )
    parser.add_argument("--json", action="store_true", help="show: print JSON.")
    add_flags(parser)


def run(args: Namespace) -> int:
    if args.what == "reference":
        sys.stdout.write(reference())
        return 0
    options, provenance = load(vars(args), os.environ, Path.cwd())
    running = _running(options, provenance)
    print((as_json if args.json else as_table)(options, provenance, running))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSettings:
    """What a running service goes by."""

    url: str
    values: Mapping[str, Any]
    """By option; as JSON has them."""


def _running(options: Options, provenance: Provenance) -> RunningSettings | None:
    """Of the service at this address, unless flags ask what a service with them would go by."""
    flags = {name for name, origin in provenance.origins.items() if origin.source is Source.FLAG}
    if flags - ADDRESS.keys():
        return None
    service = RunningService.of(options)
    try:
        return RunningSettings(url=service.url, values=service.ask("GET", SETTINGS, timeout_s=_TIMEOUT_S))
    except Unreachable:
        return None


SETTINGS = "/admin/settings"
_TIMEOUT_S = 3.0


def as_table(options: Options, provenance: Provenance, running: RunningSettings | None = None) -> str:
    """One line an option: its name, its value, and where that came from."""
    rows = [(option.name, *_shown(option, options, provenance, running)) for option in declared()]
    file = provenance.config_file or f"none ({CONFIG_FILE} was not found)"
    in_force = f"in force: at {running.url}, which runs\n" if running else ""
    return f"{table(('option', 'value', 'from'), rows)}\n\n{in_force}file: {file}"


def _shown(
    option: Option, options: Options, provenance: Provenance, running: RunningSettings | None
) -> tuple[str, str]:
    """The value and where it came from; of a service that goes by another, what would hold here."""
    here, where = _value(option, options), provenance.origins[option.name].where
    if running is None or _is_the_same(option, options, running):
        return here, where
    value = running.values[option.name]
    text = ",".join(map(str, value)) if isinstance(value, list) else json.dumps(value).strip('"')
    return text, f"its own flags, variables or file; here {here} ({where})"


def _is_the_same(option: Option, options: Options, running: RunningSettings) -> bool:
    if option.name not in running.values:
        return True
    here = json.loads(json.dumps(getattr(options, option.name), default=str))
    return bool(running.values[option.name] == here)


def as_json(options: Options, provenance: Provenance, running: RunningSettings | None = None) -> str:
    """{"config_file": …, "running": URL or null, "options": {name: {value, source, where}}}"""

    def value(option: Option) -> object:
        here: object = getattr(options, option.name)
        return here if running is None else running.values.get(option.name, here)

    def origin(option: Option) -> tuple[str, str]:
        if running is not None and not _is_the_same(option, options, running):
            return "running", running.url
        origin = provenance.origins[option.name]
        return origin.source, origin.where

    shown = {
        option.name: {"value": value(option), **dict(zip(("source", "where"), origin(option), strict=True))}
        for option in declared()
    }
    told = {"config_file": provenance.config_file, "running": running.url if running else None}
    return json.dumps({**told, "options": shown}, indent=2, default=str)


def _value(option: Option, options: Options) -> str:
    value = getattr(options, option.name)
    if option.name == "state_dir" and options.port:
        value = options.state_dir_for(options.port, os.environ)
    text = value_text(option, value)
    return f"({text})" if value in (None, ()) else text


def reference() -> str:
    """docs/options.md, made from the declaration."""
    return _HEAD + "\n".join(_section(section) for section in Section) + _TAIL


def _section(section: Section) -> str:
    rows = "\n".join(_row(option) for option in declared() if option.doc.section is section)
    return f"## {section}\n\n| option | value | default | what it does |\n|---|---|---|---|\n{rows}\n"


def _row(option: Option) -> str:
    default = default_text(option)
    shown = default if option.default in (None, ()) else f"`{default}`"
    expects = f"`{option.expects}`" if option.several and option.doc.flag else option.expects
    cells = (f"`{option.name}`", expects, shown, option.doc.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_HEAD = f"""\
<!-- Made by `autoglm config reference`; do not edit. -->

# Options

Every option can be set in three places. The strongest that sets it wins:

1. a flag of `autoglm serve`: `--max-body-mb 32` (a switch: `--speech`, `--no-speech`)
2. an environment variable: `AUTOGLM_MAX_BODY_MB=32`
3. the config file: `max_body_mb = 32`

The config file is TOML. It is the first of these that applies, and no other is read: `--config FILE`,
`${CONFIG_VARIABLE}`, `./{CONFIG_FILE}`, `~/.config/autoglm/{CONFIG_FILE}` (or under `$XDG_CONFIG_HOME`).
Relative paths are relative to the folder in which the service is started. A list is written `a,b` in a flag
or a variable and `["a", "b"]` in the file. An empty variable counts as not set.

`autoglm config show` prints every value in force and where it came from: of the service that runs at the
address, where one does and no other flags are given. A name that does not exist and a
value that does not fit stop the start with exit status 3; the message names the flag, the variable, or the
file and line.

"""

_TAIL = f"""
## Variables that are left alone

An unknown variable that begins with `AUTOGLM_` is told of at the start and changes nothing. Those that
Kubernetes and Docker make for a service of that name (`AUTOGLM_PORT=tcp://…`, `AUTOGLM_SERVICE_HOST`) are
left alone, and so are these, which phone-agent clients read:
{", ".join(f"`{name}`" for name in sorted(CLIENT_VARIABLES))}.
"""
