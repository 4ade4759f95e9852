"""`autoglm completion`: a script by which a shell completes verbs and flags, read off their parsers."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

from autoglm_serve.core.errors import ExitCode

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "autoglm completion {bash,zsh,fish}"
    parser.add_argument(
        "shell",
        choices=SHELLS,
        metavar="SHELL",
        help='For bash: eval "$(autoglm completion bash)"',
    )


def run(args: Namespace) -> int:
    flags = _flags_by_verb()
    script = _fish(flags) if args.shell == "fish" else _bash(flags)
    if args.shell == "zsh":
        script = f"autoload -U +X bashcompinit && bashcompinit\n{script}"
    sys.stdout.write(script)
    return ExitCode.OK


def _flags_by_verb() -> dict[str, list[str]]:
    from autoglm_serve.cli.main import VERBS, parser_of  # here: it imports this module by name

    return {
        verb.name: sorted(flag for flag in parser_of(verb).flags if flag.startswith("--")) for verb in VERBS
    }


def _bash(flags: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'        {verb}) words="{" ".join(known)}" ;;' for verb, known in flags.items())
    return f"""\
_autoglm() {{
    local words current=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{" ".join(flags)}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _autoglm autoglm
"""


def _fish(flags: Mapping[str, Sequence[str]]) -> str:
    lines = [f"complete -c autoglm -n __fish_use_subcommand -a {verb}" for verb in flags]
    for verb, known in flags.items():
        condition = f"'__fish_seen_subcommand_from {verb}'"
        lines += [f"complete -c autoglm -n {condition} -l {flag.removeprefix('--')}" for flag in known]
    return "\n".join(lines) + "\n"
