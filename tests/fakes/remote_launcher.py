"""A launcher whose processes are another machine's, as far as it can tell: it has a socket to an agent.

It may lose its connection at any time; it asks again, and what ran meanwhile ran on.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_serve.core.plan import Placement
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.launch.base import NO_NOTE, Exit

_AGAIN_S = 0.02
_FOLLOW_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLeft:
    """What the agent still runs of an earlier launcher's."""

    id: str
    listen: Listen
    note: Mapping[str, str]
    fingerprint: str

    def runs(self, command: Command) -> bool:
        return self.fingerprint == command.fingerprint


class RemoteLog:
    """Lines as they come over the socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._kept: deque[str] = deque(maxlen=200)
        self._new: list[str] = []

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._kept)

    def read_new(self) -> tuple[str, ...]:
        new, self._new = tuple(self._new), []
        self._kept.extend(new)
        return new

    def came(self, lines: Iterable[str]) -> None:
        self._new.extend(lines)


class RemoteProcess:
    """A process of the agent's."""

    def __init__(self, launcher: "RemoteLauncher", replica_id: str, told: dict[str, Any]) -> None:
        self.pid: int = told["pid"]
        self.listens = True
        self.listen = Listen(host=told["host"], port=told["port"])
        self.log = RemoteLog(told["log"])
        self._id = replica_id
        self._launcher = launcher
        self._following = asyncio.create_task(self._follow())
        self._killing: asyncio.Task[Any] | None = None

    async def exited(self) -> Exit:
        how = Exit(**await self._launcher.ask("exited", replica_id=self._id))
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self._read()
        return how

    async def end(self, grace_s: float) -> None:
        await self._launcher.ask("end", replica_id=self._id, grace_s=grace_s)

    def kill(self) -> None:
        self._killing = asyncio.create_task(self.end(0.0))

    async def close(self) -> None:
        self._following.cancel()
        await self._launcher.ask("close", replica_id=self._id)

    async def _follow(self) -> None:
        while True:
            await self._read()
            await asyncio.sleep(_FOLLOW_S)

    async def _read(self) -> None:
        seen = len(self.log.lines) + len(self.log._new)
        self.log.came(await self._launcher.ask("lines", replica_id=self._id, seen=seen))


class RemoteLauncher:
    """Asks the agent behind a socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.lost = 0
        """Connections, so far."""

    async def ask(self, do: str, **fields: Any) -> Any:
        """Its answer, however often the connection is lost on the way. Every question may be put twice."""
        while True:
            try:
                return await self._asked(do, fields)
            except (OSError, ValueError):
                self.lost += 1
                await asyncio.sleep(_AGAIN_S)

    async def start(
        self,
        replica_id: str,
        command: Callable[[Listen], Command],
        placement: Placement,
        *,
        note: Mapping[str, str] = NO_NOTE,
        takes_unix: bool = False,
    ) -> RemoteProcess:
        listen = Listen(**await self.ask("lease"))
        made = command(listen)
        told = await self.ask(
            "start",
            replica_id=replica_id,
            argv=made.argv,
            env=dict(made.env),
            port=listen.port,
            note=dict(note),
        )
        if "error" in told:
            raise FileNotFoundError(told["error"])
        return RemoteProcess(self, replica_id, told)

    async def left(self) -> list[RemoteLeft]:
        return [
            RemoteLeft(
                id=each["id"],
                listen=Listen(host="127.0.0.1", port=each["port"]),
                note=each["note"],
                fingerprint=each["fingerprint"],
            )
            for each in await self.ask("left")
        ]

    async def adopt(self, left: RemoteLeft) -> RemoteProcess | None:
        told = await self.ask("adopt", replica_id=left.id)
        return RemoteProcess(self, left.id, told) if told else None

    async def end(self, left: Iterable[RemoteLeft]) -> None:
        await self.ask("end_left", ids=[each.id for each in left])

    async def _asked(self, do: str, fields: dict[str, Any]) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            return json.loads(await reader.readline())
        finally:
            writer.close()
