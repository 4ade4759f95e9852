"""Who is let in: the API keys that there are, and whether other machines may come without one."""

import logging
from collections.abc import MutableMapping
from pathlib import Path

from autoglm_serve.config.options import Options
from autoglm_serve.config.sources import KEYS_VARIABLE
from autoglm_serve.core.errors import ConfigError
from autoglm_serve.keys import keys_file
from autoglm_serve.keys.key import KeysError
from autoglm_serve.keys.table import KeyTable, read_table
from autoglm_serve.launch import admin_token
from autoglm_serve.runtime.private_file import replace_whole
from autoglm_serve.usage.books import BOOKS_FILE, Books

log = logging.getLogger(__name__)


def key_files(options: Options, state_dir: Path) -> tuple[Path, ...]:
    """Where the keys of a service are."""
    named = options.keys_file.absolute() if options.keys_file else state_dir / keys_file.KEYS_FILE
    return named, state_dir / keys_file.VARIABLE_FILE


def books_of(options: Options, state_dir: Path) -> Books:
    """Where usage is booked."""
    return Books(options.usage_db or str(state_dir / BOOKS_FILE))


def prepare(options: Options, state_dir: Path, environ: MutableMapping[str, str]) -> bool:
    """Whether clients need a key. Takes the keys out of the environment, which engines inherit.

    Raises ConfigError where keys cannot be read, or where nothing would keep strangers out.
    """
    admin_token.ensure(state_dir)
    _keep_variable(environ.pop(KEYS_VARIABLE, ""), state_dir / keys_file.VARIABLE_FILE)
    guarded = len(_read(key_files(options, state_dir))) > 0
    if options.keys_file is not None and not options.keys_file.exists():
        raise ConfigError(
            f"There is no file of keys {options.keys_file}.",
            next_step="Make one with `autoglm keys create --keys-file FILE`, or leave --keys-file out.",
        )
    if not guarded and not options.for_this_machine_alone and not options.open_to_network:
        raise ConfigError(
            f"Whoever reaches {options.host} could use this service: it has no API keys.",
            next_step="Make one with `autoglm keys create`, or say --open-to-network if that is meant.",
        )
    if not guarded and not options.for_this_machine_alone:
        log.warning("%s is open to every machine that reaches it: there are no API keys", options.host)
    return guarded


def has_keys(files: tuple[Path, ...]) -> bool:
    """Whether anything is written there: a file that is wrong keeps the door shut as well."""
    return any(file.exists() and file.stat().st_size for file in files)


def _keep_variable(said: str, file: Path) -> None:
    """What a variable says, as a file that workers read, without the secrets."""
    if not said.strip():
        file.unlink(missing_ok=True)
        return
    text = said if "{" in said else said.replace(",", "\n")
    try:
        table = read_table([(text.encode(), KEYS_VARIABLE)])
    except KeysError as problem:
        raise _wrong(problem) from None
    replace_whole(file, b"".join(keys_file.line_of(key) for key in table))


def _read(files: tuple[Path, ...]) -> KeyTable:
    try:
        return keys_file.read(files)
    except KeysError as problem:
        raise _wrong(problem) from None
    except OSError as problem:
        raise ConfigError(
            f"The file of keys {problem.filename} cannot be read.",
            why=problem.strerror or str(problem),
            next_step="Name one that this account may read with --keys-file.",
        ) from problem


def _wrong(problem: KeysError) -> ConfigError:
    return ConfigError("The API keys are not right.", why=str(problem), next_step="Mend that line.")
