"""Usage from a worker's line to a sum in a database, whatever breaks on the way."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.runtime.clock import RealClock
from autoglm_serve.service.bookkeeper import Bookkeeper
from autoglm_serve.usage.books import Books, BooksError
from autoglm_serve.usage.daybook import FOLDER, Daybooks, DaybookWriter
from autoglm_serve.usage.record import Heading, UsageRecord, Used, line_of, records_in, summed
from tests.fakes.postgres import installed, running_postgres

DAY_S = 86_400
RECORDS = st.builds(
    UsageRecord,
    st.integers(0, 10**10),
    st.text(max_size=8),
    st.text(max_size=8),
    st.text(max_size=8),
    st.booleans(),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.booleans(),
)


def record(tokens: int = 1, at_s: int = DAY_S, key: str = "k") -> UsageRecord:
    return UsageRecord(at_s, key, "ann", "m", True, tokens, tokens, False)


def tokens_in(books: Books) -> int:
    return sum(used.prompt_tokens for used in books.read("0000", "9999").values())


def keeper(tmp_path: Path, books: Books) -> Bookkeeper:
    return Bookkeeper(tmp_path, books, RealClock())


@given(st.lists(RECORDS), st.integers(0, 200))
def test_lines_are_read_as_they_were_written_and_a_torn_one_waits(
    records: list[UsageRecord], cut: int
) -> None:
    text = b"".join(map(line_of, records))
    assert records_in(text) == (records, len(text))
    torn = text[: max(0, len(text) - cut)]
    found, size_bytes = records_in(torn)
    assert found == records[: len(found)]
    assert b"\n" not in torn[size_bytes:]


@given(st.lists(RECORDS))
def test_sums_leave_nothing_out(records: list[UsageRecord]) -> None:
    sums = summed(records)
    assert sum(used.requests for used in sums.values()) == len(records)
    assert sum(used.prompt_tokens for used in sums.values()) == sum(each.prompt_tokens for each in records)
    assert sum(used.failed for used in sums.values()) == sum(not each.good for each in records)


def test_a_request_belongs_to_the_day_on_which_it_began() -> None:
    days = {heading.day for heading in summed([record(at_s=DAY_S - 1), record(at_s=DAY_S)])}
    assert days == {"1970-01-01", "1970-01-02"}


@pytest.fixture(params=["sqlite", "postgres"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    if request.param == "sqlite":
        yield Books(str(tmp_path / "usage.db"))
        return
    if not installed():
        pytest.skip("there is no PostgreSQL here")
    with running_postgres() as server:
        yield Books(server.address)


@pytest.mark.process
def test_everything_is_booked_once(books: Books, tmp_path: Path) -> None:
    writers = [DaybookWriter(tmp_path, worker) for worker in range(3)]
    for number in range(30):
        writers[number % 3].write(record(number, key=f"k-{number % 2}"))
    first = keeper(tmp_path, books)
    first.book()
    first.book()
    assert tokens_in(books) == sum(range(30))
    writers[0].write(record(1000))
    keeper(tmp_path, books).book()  # a control plane that comes after one that was killed
    assert tokens_in(books) == sum(range(30)) + 1000
    found = books.read("1970-01-02", "1970-01-02")
    assert found[Heading("1970-01-02", "k-1", "ann", "m")] == Used(
        requests=15, prompt_tokens=225, completion_tokens=225
    )
    assert books.read("1970-01-03", "9999") == {}


@pytest.mark.process
def test_of_two_who_book_the_same_one_is_refused(books: Books, tmp_path: Path) -> None:
    writer = DaybookWriter(tmp_path, 0)
    first, second = keeper(tmp_path, books), keeper(tmp_path, books)
    writer.write(record(1))
    first.book()
    second.book()
    writer.write(record(2))
    parts = {entry.daybook: (0, entry.end_bytes) for entry in Daybooks(tmp_path).unread({})}
    with pytest.raises(BooksError, match="another control plane"):
        books.book(Daybooks(tmp_path).service(), summed([record(3)]), parts)
    with ThreadPoolExecutor() as threads:
        for _ in range(10):
            writer.write(record(10))
            list(threads.map(lambda each: each.book(), [first, second, first, second]))
    first.book()
    assert tokens_in(books) == 103


@pytest.mark.process
def test_a_daybook_goes_when_its_writer_has_gone_and_not_before(books: Books, tmp_path: Path) -> None:
    writer, bookkeeper = DaybookWriter(tmp_path, 0), keeper(tmp_path, books)
    writer.write(record())
    bookkeeper.book()
    assert len(list((tmp_path / FOLDER).glob("*.daybook"))) == 1
    writer.close()
    bookkeeper.book()
    assert list((tmp_path / FOLDER).glob("*.daybook")) == []
    writer.write(record())
    keeper(tmp_path, books).book()
    assert tokens_in(books) == 2


@pytest.mark.process
def test_two_services_share_their_books(books: Books, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        writer = DaybookWriter(tmp_path / name, 0)
        writer.write(record(7))
        writer.close()
    for _ in range(2):
        for name in ("one", "two"):
            keeper(tmp_path / name, books).book()
    assert tokens_in(books) == 14


@pytest.mark.process
def test_a_server_that_goes_away_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not installed():
        pytest.skip("there is no PostgreSQL here")
    with running_postgres() as server:
        books = Books(server.address)
        writer, bookkeeper = DaybookWriter(tmp_path, 0), keeper(tmp_path, books)
        writer.write(record(1))
        bookkeeper.book()
        server.kill()
        for _ in range(5):
            writer.write(record(10))
            bookkeeper.book()
        [complaint] = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert "requests go on" in complaint.getMessage()
        server.start()
        bookkeeper.book()
        assert tokens_in(books) == 51


def test_what_cannot_be_booked_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "usage.db"
    books, writer = Books(str(path)), DaybookWriter(tmp_path, 0)
    writer.write(record(1))
    path.write_bytes(b"this is no database " * 100)
    bookkeeper = keeper(tmp_path, books)
    bookkeeper.book()
    assert "not a database" in caplog.text
    assert path.read_bytes().startswith(b"this is no database")
    path.unlink()
    bookkeeper.book()
    assert tokens_in(books) == 1


def test_a_database_that_is_locked_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_serve.usage.books._BUSY_S", 0.01)
    books, writer = Books(str(tmp_path / "usage.db")), DaybookWriter(tmp_path, 0)
    bookkeeper = keeper(tmp_path, books)
    writer.write(record(1))
    bookkeeper.book()
    writer.write(record(2))
    other = sqlite3.connect(tmp_path / "usage.db")
    other.execute("BEGIN EXCLUSIVE")
    bookkeeper.book()
    other.close()
    assert tokens_in(books) == 1
    bookkeeper.book()
    assert tokens_in(books) == 3


def test_books_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    books = Books(str(tmp_path / "usage.db"))
    books.booked("s")
    with sqlite3.connect(tmp_path / "usage.db") as database:
        database.execute("INSERT INTO autoglm_books VALUES (2)")
    with pytest.raises(BooksError, match="newer"):
        books.booked("s")


def test_a_disk_that_is_full_ends_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = DaybookWriter(tmp_path, 0)
    writer.write(record())
    full = os.open("/dev/full", os.O_WRONLY)
    assert writer._descriptor is not None
    os.dup2(full, writer._descriptor)
    os.close(full)
    writer.write(record())
    assert "in no books" in caplog.text
    writer.write(record())
    assert sum(len(entry.records) for entry in Daybooks(tmp_path).unread({})) == 2
