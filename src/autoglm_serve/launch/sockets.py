"""Where engines listen: a folder that only this account may enter.

A port of loopback is anybody's who takes it first, and a web page can write to it; a socket in here is
neither's.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from autoglm_serve.engines.base import Listen
from autoglm_serve.launch import unix_socket

FOLDER = "engines"
_ELSEWHERE = "autoglm-"


def fresh(state_dir: Path, replica_id: str) -> Listen:
    """An address that no process has had: an address stands for a process. Raises OSError.

    Where the state directory's path is too long for the kernel, the folder is one of its own in /tmp.
    """
    name = f"{replica_id}-{uuid4().hex[:8]}.sock"
    folder = state_dir / FOLDER
    if unix_socket.fits(folder / f"_{name}"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    else:
        folder = Path(tempfile.mkdtemp(prefix=_ELSEWHERE, dir="/tmp"))  # mode 700, and nobody else's
    return Listen(path=folder / name)


def remove(listen: Listen) -> None:
    """The socket of a process that has ended, what lies beside it, and the folder if it was its own."""
    if listen.path is None:
        return
    folder = listen.path.parent
    for path in (listen.path, listen.path.with_name(f"_{listen.path.name}")):
        with suppress(OSError):
            path.unlink()
    if folder.name.startswith(_ELSEWHERE):
        with suppress(OSError):
            os.rmdir(folder)
