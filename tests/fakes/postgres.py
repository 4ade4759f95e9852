"""A PostgreSQL of a test's own, on a unix socket in a folder; started, stopped and ended with the test."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_PATIENCE_S = 60.0


def installed() -> bool:
    """There are its programs, and an account that they agree to run as."""
    return (
        shutil.which("postgres") is not None and shutil.which("initdb") is not None and _account() is not None
    )


class PostgresProcess:
    """One server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"postgresql://books@/postgres?host={self._folder}"

    def start(self) -> None:
        """Return when it takes connections."""
        argv = [shutil.which("postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder), "-h", ""]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen([*map(str, argv)], stdout=log, stderr=log, **_as_account())
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline_s, "it never began to listen"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """At once, as a machine that is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=_PATIENCE_S)
            (self._folder / ".s.PGSQL.5432").unlink(missing_ok=True)


@contextmanager
def running_postgres() -> Iterator[PostgresProcess]:
    with tempfile.TemporaryDirectory(prefix="pg-") as temporary:
        folder = Path(temporary)
        account = _account()
        if os.geteuid() == 0 and account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        subprocess.run(
            [
                str(shutil.which("initdb")),
                "-D",
                str(folder / "data"),
                "-U",
                "books",
                "-A",
                "trust",
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **_as_account(),
        )
        server = PostgresProcess(folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _account() -> pwd.struct_passwd | None:
    """It does not run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _as_account() -> dict[str, Any]:
    account = _account()
    if os.geteuid() != 0 or account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}
