"""The file of keys: one a line, replaced whole on every change, so that a reader never sees half of it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.keys.key import Key, KeysError, plain
from autoglm_serve.keys.table import KeyTable, key_in, read_table
from autoglm_serve.runtime.private_file import replace_whole

KEYS_FILE = "keys.jsonl"
"""In the state directory, where no other file is named."""
VARIABLE_FILE = "keys-of-variable.jsonl"


def line_of(key: Key) -> bytes:
    return orjson.dumps(plain(key)) + b"\n"


def read(paths: "tuple[Path, ...]") -> KeyTable:
    """The keys of these files; one that is not there says nothing. Raises KeysError and OSError."""
    texts = []
    for path in paths:
        try:
            texts.append((path.read_bytes(), str(path)))
        except FileNotFoundError:
            continue
    return read_table(texts)


def add(path: Path, key: Key) -> None:
    """Raises ConfigError where the file cannot be written, or has this key already."""
    with _changing(path) as lines:
        lines.append(line_of(key))


def change(path: Path, id: str, changed: Callable[[Key], Key]) -> Key:
    """What the key of this id becomes. Raises ConfigError where there is none."""
    with _changing(path) as lines:
        for at, line in enumerate(lines):
            key = key_in(line)
            if key is not None and key.id == id:
                key = changed(key)
                lines[at] = line_of(key)
                return key
        raise ConfigError(f"There is no key {id} in {path}.", next_step="`autoglm keys list` names them.")


@contextmanager
def _changing(path: Path) -> Iterator[list[bytes]]:
    """The lines of the file, to be changed by nobody else meanwhile; written back if they are right."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        real = path.resolve()  # a link stays one
        lock = os.open(real.with_name(f".{real.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = real.read_bytes().splitlines() if real.exists() else []
            yield lines
            text = b"".join(line.rstrip() + b"\n" for line in lines)
            read_table([(text, str(path))])
            replace_whole(real, text)
        finally:
            os.close(lock)
    except KeysError as problem:
        raise ConfigError(
            "The file of keys is not right.", why=str(problem), next_step="Mend it by hand."
        ) from None
    except OSError as problem:
        raise ConfigError(
            f"The file of keys {path} cannot be changed.",
            why=problem.strerror or str(problem),
            next_step="Name another with --keys-file; one that is mounted is changed where it comes from.",
        ) from problem
