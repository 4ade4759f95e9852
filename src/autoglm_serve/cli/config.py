"""`autoglm config`: the effective options with their origins, and the reference that docs/ carries."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from autoglm_serve.cli.parser import add_flags, default_text, value_text
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Option, Options, Section, declared
from autoglm_serve.config.sources import CLIENT_VARIABLES, CONFIG_FILE, CONFIG_VARIABLE, Provenance, load


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
        help="show: every effective value and where it came from (the default). "
        "reference: every option explained, as Markdown.",
    )
    parser.add_argument("--json", action="store_true", help="show: print JSON.")
    add_flags(parser)


def run(args: Namespace) -> int:
    if args.what == "reference":
        sys.stdout.write(reference())
        return 0
    options, provenance = load(vars(args), os.environ, Path.cwd())
    print(as_json(options, provenance) if args.json else as_table(options, provenance))
    return 0


def as_table(options: Options, provenance: Provenance) -> str:
    """One line an option: its name, its value, and where that came from."""
    rows = [
        (option.name, _value(option, options), provenance.origins[option.name].where) for option in declared()
    ]
    file = provenance.config_file or f"none ({CONFIG_FILE} was not found)"
    return f"{table(('option', 'value', 'from'), rows)}\n\nfile: {file}"


def as_json(options: Options, provenance: Provenance) -> str:
    """{"config_file": …, "options": {name: {value, source, where}}}"""
    shown = {
        option.name: {
            "value": getattr(options, option.name),
            "source": provenance.origins[option.name].source,
            "where": provenance.origins[option.name].where,
        }
        for option in declared()
    }
    return json.dumps({"config_file": provenance.config_file, "options": shown}, indent=2, default=str)


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

`autoglm config show` prints every effective value and where it came from. A name that does not exist and a
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
