"""The books: sums by day, key and model in a database, and how far each daybook is booked.

Both are written in one transaction, so that whoever is killed or cut off, nothing is booked twice and nothing
is left out. SQLite by default; PostgreSQL where the address says so, for several services together.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from autoglm_serve.usage.record import Heading, Used

VERSION = 1
BOOKS_FILE = "usage.db"
_BUSY_S = 5.0
_CONNECT_S = 5
_TABLES = (
    "CREATE TABLE IF NOT EXISTS autoglm_books (version INTEGER NOT NULL PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS autoglm_usage (day TEXT NOT NULL, key_id TEXT NOT NULL, owner TEXT NOT NULL, "
    "model TEXT NOT NULL, requests BIGINT NOT NULL, failed BIGINT NOT NULL, estimated BIGINT NOT NULL, "
    "prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, "
    "PRIMARY KEY (day, key_id, owner, model))",
    "CREATE TABLE IF NOT EXISTS autoglm_daybooks (service TEXT NOT NULL, name TEXT NOT NULL, "
    "booked BIGINT NOT NULL, PRIMARY KEY (service, name))",
)
_SUMS = ("requests", "failed", "estimated", "prompt_tokens", "completion_tokens")
_ADD = (
    f"INSERT INTO autoglm_usage (day, key_id, owner, model, {', '.join(_SUMS)}) "
    f"VALUES ({', '.join('?' * 9)}) ON CONFLICT (day, key_id, owner, model) DO UPDATE SET "
    + ", ".join(f"{sum} = autoglm_usage.{sum} + excluded.{sum}" for sum in _SUMS)
)
_BEGIN_DAYBOOK = (
    "INSERT INTO autoglm_daybooks (service, name, booked) VALUES (?, ?, 0) "
    "ON CONFLICT (service, name) DO NOTHING"
)
_ADVANCE = "UPDATE autoglm_daybooks SET booked = ? WHERE service = ? AND name = ? AND booked = ?"


class BooksError(Exception):
    """The database does not do what it is asked for, in its own words."""


class Books:
    """One database, connected to for each piece of work."""

    def __init__(self, address: str) -> None:
        """A path, or postgresql://…"""
        self._postgres = address.startswith(("postgresql://", "postgres://"))
        self._address = address

    @property
    def there(self) -> bool:
        """There is something to read."""
        return self._postgres or Path(self._address).exists()

    def booked(self, service: str) -> dict[str, int]:
        """How many bytes of each daybook of a service are booked. Makes the tables where there are none."""
        with self._work() as work:
            for table in _TABLES:
                work.do(table)
            versions = [version for (version,) in work.rows("SELECT version FROM autoglm_books")]
            if not versions:
                work.do("INSERT INTO autoglm_books (version) VALUES (?)", VERSION)
            if versions and max(versions) > VERSION:
                raise BooksError(f"a newer version of autoglm-serve has written them (form {max(versions)})")
            return dict(work.rows("SELECT name, booked FROM autoglm_daybooks WHERE service = ?", service))

    def book(self, service: str, sums: Mapping[Heading, Used], parts: Mapping[str, tuple[int, int]]) -> None:
        """Add these sums, which are those of these parts (from, to) of the daybooks: all of it or nothing.

        Raises BooksError also where somebody else has booked a part of them.
        """
        with self._work() as work:
            for name, (begin_bytes, end_bytes) in parts.items():
                work.do(_BEGIN_DAYBOOK, service, name)
                if work.do(_ADVANCE, end_bytes, service, name, begin_bytes) != 1:
                    raise BooksError(f"the daybook {name} is booked by another control plane")
            for heading, used in sorted(sums.items()):
                counts = (getattr(used, name) for name in _SUMS)
                work.do(_ADD, heading.day, heading.key_id, heading.owner, heading.model, *counts)

    def forget(self, service: str, daybooks: Sequence[str]) -> None:
        """These daybooks are no more."""
        with self._work() as work:
            for name in daybooks:
                work.do("DELETE FROM autoglm_daybooks WHERE service = ? AND name = ?", service, name)

    def read(self, first_day: str, last_day: str) -> dict[Heading, Used]:
        """What was used from one day to another, both included."""
        select = f"SELECT day, key_id, owner, model, {', '.join(_SUMS)} FROM autoglm_usage "
        with self._work("BEGIN") as work:
            found = work.rows(select + "WHERE day BETWEEN ? AND ? ORDER BY 1, 2, 3, 4", first_day, last_day)
            return {Heading(*row[:4]): Used(**dict(zip(_SUMS, row[4:], strict=True))) for row in found}

    @contextmanager
    def _work(self, begin: str = "BEGIN IMMEDIATE") -> Iterator["_Work"]:
        """One transaction. Raises BooksError."""
        if self._postgres:
            with _postgres_work(self._address) as work:
                yield work
            return
        try:
            with closing(sqlite3.connect(self._address, timeout=_BUSY_S)) as database, database:
                database.execute(begin)
                yield _Work(database.execute)
        except sqlite3.Error as problem:
            raise BooksError(str(problem)) from problem


class _Work:
    """Statements of one transaction."""

    def __init__(self, execute: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self._execute = execute

    def do(self, statement: str, *values: object) -> int:
        """How many rows it has changed."""
        return int(self._execute(statement, values).rowcount)

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._execute(statement, values).fetchall()]


@contextmanager
def _postgres_work(address: str) -> Iterator[_Work]:
    try:
        import psycopg
    except ImportError as problem:
        raise BooksError(
            "the driver for PostgreSQL is missing: pip install 'autoglm-serve[postgres]'"
        ) from problem

    try:
        with psycopg.connect(
            address, connect_timeout=_CONNECT_S, options=f"-c statement_timeout={int(_BUSY_S * 1000)}"
        ) as connection:
            yield _Work(lambda said, values: connection.execute(said.replace("?", "%s").encode(), values))
    except psycopg.Error as problem:
        raise BooksError(" ".join(str(problem).split())) from problem
