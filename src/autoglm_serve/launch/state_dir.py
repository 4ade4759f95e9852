"""The state directory: one service's records, logs and sockets, and the lock that keeps it one's."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from autoglm_serve.core.errors import ConfigError, StateDirBusy

_LOOK_S = 0.01


class StateDir:
    """Holds the directory for this process; the kernel lets it go when the process ends, however it ends."""

    def __init__(self, path: Path, *, wait_s: float = 0.0) -> None:
        """Make it if need be, and lock it, waiting for its holder. Raises StateDirBusy or ConfigError."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
