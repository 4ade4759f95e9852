"""The token of the admin API: in the state directory, where its owner alone can read it."""

import hmac
import os
import secrets
from pathlib import Path

_FILE = "admin-token"
_MOST_BYTES = 256


def ensure(state_dir: Path) -> None:
    """Make one if there is none. Raises OSError."""
    if _said(state_dir):
        return
    (state_dir / _FILE).unlink(missing_ok=True)  # a kill or a full disk has left it empty
    made = os.open(state_dir / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(made, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")


def is_right(state_dir: Path, presented: bytes) -> bool:
    """Whether this is the token of the service in this state directory."""
    token = _said(state_dir)
    return bool(token) and hmac.compare_digest(token, presented)


def read(state_dir: Path) -> str:
    """Empty where there is none, or where it is not for us to read."""
    return _said(state_dir).decode("ascii", "replace")


def _said(state_dir: Path) -> bytes:
    try:
        descriptor = os.open(state_dir / _FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _MOST_BYTES).strip()
    finally:
        os.close(descriptor)
