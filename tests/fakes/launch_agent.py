"""A machine's end of the launcher in `tests.fakes.remote_launcher`: its own process tree, behind a socket.

    python -m tests.fakes.launch_agent SOCKET STATE_DIR

One question a connection, one line of JSON each way. `drop` closes every connection, and the door.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from autoglm_serve.engines.base import Command
from autoglm_serve.launch.base import Exit
from autoglm_serve.launch.local import LocalLauncher, LocalProcess
from autoglm_serve.launch.ports import LOOPBACK, PortLease
from tests.fakes.faulty_engine import die_with_parent


class Agent:
    """Answers questions about the processes that it has started or adopted."""

    def __init__(self, socket: Path, state_dir: Path) -> None:
        self._socket = socket
        self._launcher = LocalLauncher(state_dir)
        self._leases: dict[int, PortLease] = {}
        self._processes: dict[str, LocalProcess] = {}
        self._exits: dict[str, asyncio.Task[Exit]] = {}
        self._lines: dict[str, list[str]] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._dropped = asyncio.Event()

    async def run(self) -> None:
        while True:
            self._dropped.clear()
            server = await asyncio.start_unix_server(self._serve, self._socket)
            await self._dropped.wait()
            server.close()
            self._socket.unlink(missing_ok=True)
            for writer in tuple(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            question = json.loads(await reader.readline())
            try:
                answer = await getattr(self, question.pop("do"))(**question)
            except FileNotFoundError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except OSError:
            pass  # they are gone, and ask again
        finally:
            self._writers.discard(writer)
            writer.close()

    async def lease(self) -> dict[str, Any]:
        lease = PortLease()
        self._leases[lease.port] = lease
        return {"host": LOOPBACK, "port": lease.port}

    async def start(
        self, replica_id: str, argv: list[str], env: dict[str, str], port: int, note: dict[str, str]
    ) -> dict[str, Any]:
        lease = self._leases.pop(port)
        try:
            process = self._launcher.spawn(replica_id, Command(argv=tuple(argv), env=env), port, note=note)
        except FileNotFoundError:
            lease.close()
            raise
        process.hold(lease)
        return self._keep(process)

    async def left(self) -> list[dict[str, Any]]:
        return [
            {
                "id": each.id,
                "port": each.port,
                "note": dict(each.note),
                "fingerprint": each.fingerprint,
            }
            for each in await self._launcher.left()
        ]

    async def adopt(self, replica_id: str) -> dict[str, Any]:
        record = next(each for each in await self._launcher.left() if each.id == replica_id)
        process = self._processes.get(replica_id) or await self._launcher.adopt(record)
        return {} if process is None else self._keep(process)

    async def end_left(self, ids: list[str]) -> None:
        await self._launcher.end(each for each in await self._launcher.left() if each.id in ids)

    async def exited(self, replica_id: str) -> dict[str, Any]:
        how = await asyncio.shield(self._exits[replica_id])
        return {"code": how.code, "signal": how.signal, "oom_kills": how.oom_kills}

    async def lines(self, replica_id: str, seen: int) -> list[str]:
        kept = self._lines[replica_id]
        kept.extend(self._processes[replica_id].log.read_new())
        return kept[seen:]

    async def end(self, replica_id: str, grace_s: float) -> None:
        await self._processes[replica_id].end(grace_s)

    async def close(self, replica_id: str) -> None:
        process = self._processes.pop(replica_id, None)
        if process is not None:
            await process.close()

    async def drop(self) -> None:
        asyncio.get_running_loop().call_later(0.05, self._dropped.set)

    def _keep(self, process: LocalProcess) -> dict[str, Any]:
        name = process.record.id
        if name not in self._processes:
            self._processes[name], self._lines[name] = process, []
            self._exits[name] = asyncio.create_task(process.exited())
        listen = process.listen
        return {"pid": process.pid, "host": listen.host, "port": listen.port, "log": process.log.name}


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(Agent(Path(sys.argv[1]), Path(sys.argv[2])).run())
