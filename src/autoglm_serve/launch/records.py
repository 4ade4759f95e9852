"""What is running, on disk: one small file a replica, so that the next start finds what this one left.

`<state_dir>/replicas/<id>.json` is written whole or not at all and is on the disk before the process may run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoglm_serve.core.codec import from_json, to_json
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.launch.ports import LOOPBACK
from autoglm_serve.launch.process import ProcessIdentity
from autoglm_serve.runtime.private_file import replace_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecord:
    """One started process."""

    id: str
    identity: ProcessIdentity
    argv: tuple[str, ...]
    port: int
    """0 where it listens on a unix socket."""
    log_path: Path
    socket_path: Path | None = None
    fingerprint: str = ""
    """Of the command that it was started by; a record of before there was one has none."""
    note: Mapping[str, str] = field(default_factory=dict)
    """What its owner wants to find again."""

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def listen(self) -> Listen:
        if self.socket_path is not None:
            return Listen(path=self.socket_path)
        return Listen(host=LOOPBACK, port=self.port)

    def runs(self, command: Command) -> bool:
        """It was started by this command."""
        return self.fingerprint == command.fingerprint if self.fingerprint else self.argv == command.argv


class Records:
    """The folder of records."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "replicas"

    def write(self, record: ReplicaRecord) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_whole(self._path(record.id), to_json(record))

    def has(self, replica_id: str) -> bool:
        return self._path(replica_id).exists()

    def remove(self, replica_id: str) -> None:
        self._path(replica_id).unlink(missing_ok=True)

    def read_all(self) -> tuple[ReplicaRecord, ...]:
        """Every record that can be read; a damaged one names no process and is dropped."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(from_json(ReplicaRecord, path.read_bytes()))
            except (ValueError, TypeError):
                path.unlink(missing_ok=True)
        return tuple(found)

    def _path(self, replica_id: str) -> Path:
        return self._folder / f"{replica_id}.json"
