"""Where the values of options come from: flags, `AUTOGLM_*` variables, `autoglm.toml`, defaults.

A flag wins over a variable, a variable over the file, the file over the default, option by option; `load`
remembers which of them each value came from, so that `autoglm config show` and every error can name it.

pydantic checks types and bounds. pydantic-settings is left out on purpose: it merges the sources before it
validates, so the origin of a value is lost, and it costs 80 ms and 14 MB to import.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from autoglm_serve.config.options import ENV_PREFIX, Option, Options, declared
from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.links import is_link
from autoglm_serve.core.wording import did_you_mean

CONFIG_VARIABLE = "AUTOGLM_CONFIG"
CONFIG_FILE = "autoglm.toml"
KEYS_VARIABLE = "AUTOGLM_KEYS"
"""No setting, and never shown as one: it holds API keys."""

CLIENT_VARIABLES = frozenset(
    """
    AUTOGLM_API_KEY AUTOGLM_APIKEY AUTOGLM_APP_ID AUTOGLM_APP_KEY AUTOGLM_BASE_URL AUTOGLM_CORS_ORIGINS
    AUTOGLM_DEFAULT_MAX_STEPS AUTOGLM_DEVICE_ID AUTOGLM_DEVICE_TYPE AUTOGLM_HELPER_URL AUTOGLM_LANG
    AUTOGLM_LOG_FILE AUTOGLM_MAX_STEPS AUTOGLM_MAX_TOKENS AUTOGLM_MODEL_NAME AUTOGLM_NO_LOG_FILE
    AUTOGLM_PROVIDER AUTOGLM_SERVER_HOST AUTOGLM_SERVER_URL AUTOGLM_TEMPERATURE AUTOGLM_THINKING
    AUTOGLM_WEB_HOST AUTOGLM_WEB_PORT
    """.split()  # noqa: SIM905
)
"""Variables that phone-agent clients read. One machine often runs both, so they are no mistake here."""


class Source(StrEnum):
    """Where a value can come from, strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one value came from."""

    source: Source
    where: str
    """The flag, the variable, `FILE:LINE`, or `default`."""


DEFAULT_ORIGIN = Origin(source=Source.DEFAULT, where="default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where every value of an `Options` came from."""

    origins: Mapping[str, Origin]
    config_file: Path | None
    unknown: tuple[str, ...] = ()
    """What looks like a misspelt variable, in words. The namespace is crowded, so it stops nothing."""


Found = dict[str, tuple[object, Origin]]
"""The values of one source, as written, by option name."""


def load(flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> tuple[Options, Provenance]:
    """The effective options, and where each came from.

    `flags` holds what the command line gave, by option name, and `config` for --config; other keys are
    the caller's own. ConfigError names everything that is wrong at once.
    """
    config_file = find_config_file(flags.get("config"), environ, cwd)
    problems: list[str] = []
    unknown: list[str] = []
    found: Found = {}
    if config_file is not None:
        found |= _from_file(config_file, cwd, problems)
    found |= _from_environment(environ, unknown)
    found |= _from_flags(flags)
    options = _checked(found, problems)
    if options is None or problems:
        raise _config_error(problems)
    origins = {
        option.name: found[option.name][1] if option.name in found else DEFAULT_ORIGIN
        for option in declared()
    }
    _check_together(options, origins)
    return options, Provenance(origins=origins, config_file=config_file, unknown=tuple(unknown))


class Reread:
    """The options anew, whenever it is called. A file that has lost all that it said is no new settings."""

    def __init__(self, flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> None:
        self._sources = (flags, environ, cwd)
        self._file = _file_used(load(flags, environ, cwd)[1])

    def __call__(self) -> Options:
        """Raises ConfigError as `load` does, and where nothing is left of the file that was read before."""
        options, now = load(*self._sources)
        used = _file_used(now)
        if self._file is not None and used is None:
            raise ConfigError(
                f"{self._file} says nothing any more.",
                why="it is empty or gone, as while an editor writes it; that would be all defaults",
                next_step="Write into it what is to hold, and send SIGHUP again; or start anew.",
            )
        self._file = used
        return options


def _file_used(provenance: Provenance) -> Path | None:
    """The configuration file, if anything came from it."""
    from_file = any(origin.source is Source.FILE for origin in provenance.origins.values())
    return provenance.config_file if from_file else None


def find_config_file(named: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """--config, then AUTOGLM_CONFIG, then ./autoglm.toml, then the one in the person's config folder.

    The first that applies is read, and no other. One that was named has to be there.
    """
    for name, source in ((named, "--config"), (environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)):
        if name:
            path = cwd / Path(str(name)).expanduser()
            if not _is_file(path):
                raise ConfigError(f"{source}: there is no file {path}.", next_step="Correct the path.")
            return path
    home = Path(environ.get("HOME") or Path.home())
    folder = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    candidates = (cwd / CONFIG_FILE, folder / "autoglm" / CONFIG_FILE)
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """Where looking is refused (a home that is another's), that is said: what it holds may be meant."""
    try:
        return path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read.",
        why=error.strerror or str(error),
        next_step=f"Check its permissions and those of its folders, or name another file with --config or "
        f"{CONFIG_VARIABLE}.",
    )


def _from_file(path: Path, cwd: Path, problems: list[str]) -> Found:
    shown = path.relative_to(cwd) if path.is_relative_to(cwd) else path
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise _unreadable(shown, error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{shown} cannot be read.", why=str(error), next_step="Save it as text in UTF-8."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{shown} is not valid TOML.",
            why=str(error),
            next_step='Write one `key = value` a line, and text in quotes: model = "phone.gguf"',
        ) from error
    names = {option.name for option in declared()}
    found: Found = {}
    for key, value in table.items():
        where = f"{shown}:{_line_of(key, text)}"
        if key in names:
            found[key] = (value, Origin(source=Source.FILE, where=where))
        else:
            problems.append(f"{where}: unknown key {key!r}.{did_you_mean(key.replace('-', '_'), names)}")
    return found


def _line_of(key: str, text: str) -> int:
    """The line of a top-level key or table; tomllib does not keep it."""
    start = re.compile(rf"\s*(\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((number for number, line in enumerate(text.splitlines(), 1) if start.match(line)), 1)


def _from_environment(environ: Mapping[str, str], unknown: list[str]) -> Found:
    by_variable = {option.variable: option.name for option in declared()}
    found: Found = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE or not value:
            continue  # an empty variable counts as not set, as in compose files
        if is_link(variable, value):
            continue
        if variable in by_variable:
            origin = Origin(source=Source.ENVIRONMENT, where=variable)
            found[by_variable[variable]] = (value, origin)
        elif variable != KEYS_VARIABLE and variable not in CLIENT_VARIABLES:
            unknown.append(f"{variable}: no option has this name.{did_you_mean(variable, by_variable)}")
    return found


def _from_flags(flags: Mapping[str, object]) -> Found:
    return {
        option.name: (
            flags[option.name],
            Origin(source=Source.FLAG, where=option.flag if option.doc.flag else "--"),
        )
        for option in declared()
        if option.name in flags
    }


# --- Checks ---------------------------------------------------------------------------------------------


def _checked(found: Found, problems: list[str]) -> Options | None:
    values = {name: value for name, (value, _) in found.items()}
    try:
        return Options(**cast("Any", values))
    except ValidationError as error:
        by_name = {option.name: option for option in declared()}
        seen: set[str] = set()
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            if name not in seen:
                seen.add(name)
                problems.append(_wrong_value(by_name[name], *found[name], detail.get("ctx", {}).get("error")))
        return None


def _wrong_value(option: Option, value: object, origin: Origin, reason: object) -> str:
    key = f" {option.name}:" if origin.source is Source.FILE else ""
    said = reason or f"{_written(value)} is not {option.expects}"
    return f"{origin.where}:{key} {said}.{did_you_mean(str(value).lower(), option.choices)}"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _check_together(options: Options, origins: Mapping[str, Origin]) -> None:
    engine = f"{options.engine} ({origins['engine'].where})"
    if options.engine == "external" and not options.upstream:
        raise ConfigError(
            "The engine is external, and no address is given.",
            next_step="Say where it serves: --upstream http://127.0.0.1:8001",
        )
    if options.upstream and options.engine != "external":
        raise ConfigError(
            f"{origins['upstream'].where} is for the engine external; the engine here is {engine}.",
            next_step="Add --engine external, or leave the address out.",
        )


def _config_error(problems: list[str]) -> ConfigError:
    next_step = "`autoglm config reference` explains every option."
    if len(problems) == 1:
        return ConfigError(problems[0], next_step=next_step)
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{len(problems)} options are wrong:{lines}", next_step=next_step)
