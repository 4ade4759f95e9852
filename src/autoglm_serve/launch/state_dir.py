"""The state directory: one service's records, logs and sockets, and the lock that keeps it one's."""

import fcntl
import os
import stat
import time
from pathlib import Path
from types import TracebackType

from autoglm_serve.core.errors import ConfigError, StateDirBusy

ADMIN_SOCKET = "admin.sock"
"""Where persons reach the control plane, through the gateway."""
CONTROL_SOCKET = "control.sock"
"""Where gateway workers reach it."""
DECIDED = "deployment.json"
"""What was decided to run, for the next control plane."""
LOGS = "logs"
_LOOK_S = 0.01


class StateDir:
    """Holds the directory for this process; the kernel lets it go when the process ends, however it ends."""

    def __init__(self, path: Path, *, wait_s: float = 0.0) -> None:
        """Make it if need be, and lock it, waiting for its holder. Raises StateDirBusy or ConfigError."""
        self.path = path
        try:
            for missing in [folder for folder in (*reversed(path.parents), path) if not folder.exists()]:
                missing.mkdir(exist_ok=True, mode=0o700)  # `parents=True` leaves theirs to the umask
            _require_ours(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(
                f"The state directory {path} cannot be used.",
                why=error.strerror or str(error),
                next_step="Choose a folder that you may write to with --state-dir.",
            ) from error
        until_s = time.monotonic() + wait_s
        while not self._locked():
            if time.monotonic() < until_s:
                time.sleep(_LOOK_S)
                continue
            holder = os.read(self._lock, 20).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise StateDirBusy(
                f"Another service (pid {holder or 'unknown'}) uses the state directory {path}.",
                next_step="Stop it, take over from it with --takeover, or give this one its own with "
                "--state-dir (and --port).",
            )
        self._sign()

    @property
    def intact(self) -> bool:
        """The directory and its lock are those that this process holds: nobody has deleted them."""
        try:
            there = os.stat(self.path / "lock")
        except OSError:
            return False
        held = os.fstat(self._lock)
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)

    def make_again(self) -> int | None:
        """Hold the directory that is at its path now, which is made if need be. The pid of the service that
        has begun in it meanwhile (0 if unknown), else None. Raises OSError where it cannot be made."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _try_lock(lock):
            said = os.read(lock, 20).strip()
            os.close(lock)
            return int(said) if said.isdigit() else 0
        os.close(self._lock)
        self._lock = lock
        self._sign()
        return None

    def _sign(self) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def let_go(self) -> None:
        """Another may have it from now on."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def take_back(self) -> None:
        """This process has it again, as soon as nobody else has."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._sign()

    def _locked(self) -> bool:
        return _try_lock(self._lock)

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> "StateDir":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _require_ours(path: Path) -> None:
    """Nobody else can have put anything into the folder, which says whose processes are ended and where
    sockets lie. Raises ConfigError; closes to other accounts a folder that they could look into.
    """
    why = _why_not_ours(path)
    if why:
        raise ConfigError(
            f"The state directory {path} cannot be trusted.",
            why=why,
            next_step="Name a folder of your own with --state-dir, in one where nobody else may write "
            "(chmod go-w takes that right away).",
        )
    path.chmod(0o700)


def _why_not_ours(path: Path) -> str:
    folder, around = path.stat(), path.absolute().parent.stat()
    if {folder.st_uid, path.lstat().st_uid} != {os.geteuid()}:
        return "It belongs to another account."
    if folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "Other accounts may write to it, and may have left something there."
    if around.st_mode & stat.S_IWOTH and not around.st_mode & stat.S_ISVTX:
        return f"Every account may replace it: {path.absolute().parent} is open to all of them."
    return ""


def holder(path: Path) -> int | None:
    """The pid of the service that holds this directory; None where there is none."""
    try:
        lock = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _try_lock(lock):
            return None
        said = os.read(lock, 20).strip()
        return int(said) if said.isdigit() else None
    finally:
        os.close(lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
