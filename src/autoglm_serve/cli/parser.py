"""Command-line parsing: flags made from the declared options, and errors that name the nearest flag."""

import shlex
import sys
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, HelpFormatter, Namespace
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Never

from autoglm_serve.cli.other_servers import advice, unknown_in
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.core.wording import did_you_mean

if TYPE_CHECKING:
    from autoglm_serve.config.options import Option

_BARE_MODEL = "bare_model"


class Parser(ArgumentParser):
    """argparse without abbreviations (a script must not break when a flag is added), in calm words."""

    def __init__(self, *, engine_args: bool = False, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)
        self._engine_args = engine_args

    @property
    def flags(self) -> Collection[str]:
        """Every flag that it knows."""
        return self._option_string_actions.keys()

    def parse_strictly(self, argv: Sequence[str]) -> Namespace:
        """Parse all of `argv`; what is unknown is named, with the nearest flag there is."""
        known = self._option_string_actions
        for flag in unknown_in(argv, known):
            self.error(f"there is no flag {flag}.{self._hint(flag)}")
        for word in argv:
            flag, equals, _ = word.partition("=")
            if equals and flag in known and known[flag].nargs == 0:
                self.error(f"{flag} takes no value; {' or '.join(known[flag].option_strings)} says it all")
        return self._one_model(self.parse_args(argv))

    def _one_model(self, args: Namespace) -> Namespace:
        """A model that was named without a flag counts as --model."""
        bare = vars(args).pop(_BARE_MODEL, None)
        if bare is not None and vars(args).setdefault("model", bare) != bare:
            self.error(f"two models are named, {bare} and {args.model}; a service serves one")
        return args

    def _hint(self, flag: str) -> str:
        """What it is elsewhere, or the nearest flag there is, or where flags go that only an engine knows."""
        if self._engine_args and (told := advice(flag)):
            return f" {told}"
        near = did_you_mean(flag, self._option_string_actions)
        return near or (" If it is the engine's own, write it after a bare --." if self._engine_args else "")

    def error(self, message: str) -> Never:
        print(f"{self.prog}: {message}\nSee {self.prog} --help", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))


class _Help(HelpFormatter):
    """Flags in one column, explanations in the next, no repeated metavars."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=32, **kwargs)


def add_model(parser: ArgumentParser) -> None:
    """MODEL without a flag, as other servers take it; the same as --model."""
    parser.add_argument(
        _BARE_MODEL, nargs="?", default=SUPPRESS, metavar="MODEL", help="The same as --model MODEL."
    )


def add_flags(
    parser: ArgumentParser,
    only: Collection[str] | None = None,
    words: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """A flag for every declared option (or for `only` these), and --config; values are checked by `load`.

    `words` explain options that mean something else to this verb than to `serve`; they may end in a [default]
    of their own. A flag that is not given leaves no trace in the namespace, so that weaker sources can speak.
    """
    from autoglm_serve.config.options import Section, declared
    from autoglm_serve.config.sources import CONFIG_FILE

    for section in Section:
        group = parser.add_argument_group(section.value)
        for option in declared():
            if option.doc.section is section and option.doc.flag and (only is None or option.name in only):
                _add_flag(group, option, words.get(option.name, option.doc.help))
    parser.add_argument("--config", metavar="FILE", help=f"Read this file instead of {CONFIG_FILE}.")


def _add_flag(group: Any, option: "Option", words: str) -> None:
    text = words.replace("%", "%%")
    if not text.endswith("]"):
        text += f" [{default_text(option)}]"
    common: dict[str, Any] = {"dest": option.name, "default": SUPPRESS, "help": text}
    if option.switch:
        group.add_argument(option.flag, action=BooleanOptionalAction, **common)
    else:
        metavar = option.doc.metavar or "{" + ",".join(option.choices) + "}"
        action = "append" if option.several else "store"
        group.add_argument(option.flag, metavar=metavar, action=action, **common)


def default_text(option: "Option") -> str:
    """The default as a person reads it."""
    return value_text(option, option.default)


def value_text(option: "Option", value: object) -> str:
    """A value as a person would write it, or what holds without one."""
    match value:
        case None | ():
            return option.doc.unset
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case tuple():
            return ",".join(value) if option.doc.flag else shlex.join(value)
        case _:
            return str(value)
