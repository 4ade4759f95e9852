"""A service as an outsider has it: started, asked, signalled, and surely ended with all that it started.

It may be killed and followed by another control plane, so what is to be ended is remembered by session, not
by parent.
"""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from autoglm_serve.launch import admin_token

Fields = dict[str, Any]
LOOK_S = 0.2
END_S = 60.0
ANSWER_S = 10.0
_AUTOGLM = (sys.executable, "-m", "autoglm_serve")


class Served:
    """One address, and whatever serves at it."""

    def __init__(self, folder: Path, settings: str, port: int) -> None:
        """`settings` is the text of the config file."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.settings = folder, port, settings
        self.state_dir = folder / "state"
        self.planes: list[subprocess.Popen[bytes]] = []
        """The control planes, the present one last."""
        self._sessions: set[int] = set()

    @property
    def plane(self) -> "subprocess.Popen[bytes]":
        return self.planes[-1]

    def configure(self, extra: str = "") -> None:
        """Writes the settings, with more lines in front of them."""
        (self.folder / "autoglm.toml").write_text(extra + self.settings)

    def start(self, *flags: str) -> None:
        """Another control plane, with the same settings."""
        log = self._log(len(self.planes))
        argv = [*_AUTOGLM, "serve", "--config", str(self.folder / "autoglm.toml"), "--log-format", "json"]
        argv += ["--port", str(self.port), "--state-dir", str(self.state_dir), *flags]
        with log.open("wb") as sink:
            plane = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        self.planes.append(plane)
        self._sessions.add(plane.pid)

    async def located(self, patience_s: float) -> int:
        """The port, once it serves there: the kernel may have chosen it."""
        await self.until_told('"url":', patience_s=patience_s)
        entries = (json.loads(line) for line in self.said().splitlines() if line.startswith("{"))
        self.port = int(next(entry["url"] for entry in entries if "url" in entry).rpartition(":")[2])
        return self.port

    async def run(self, *words: str) -> tuple[int, str]:
        """Another verb of `autoglm`: its exit status and what it said."""
        argv = (*_AUTOGLM, *words, "--port", str(self.port))
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def status(self) -> Fields | None:
        """What the service tells of itself; None while nobody answers."""
        status = await asyncio.to_thread(self._get, "/admin/status")
        for replica in (status or {}).get("replicas", ()):
            if replica["pid"] is not None:
                self._sessions.add(replica["pid"])
        return status

    async def replicas(self) -> dict[str, Fields]:
        status = await self.status()
        return {replica["id"]: replica for replica in status["replicas"]} if status else {}

    async def until(
        self, condition: Callable[[dict[str, Fields]], bool], patience_s: float
    ) -> dict[str, Fields]:
        """The replicas, once they are as wanted.

        Raises TimeoutError, or RuntimeError where nobody is in control any more.
        """
        deadline_s = time.monotonic() + patience_s
        while not (replicas := await self.replicas()) or not condition(replicas):
            if self.plane.poll() is not None:
                raise RuntimeError(f"the service ended: {self.said()[-1000:]}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the replicas never got there: {replicas}")
            await asyncio.sleep(LOOK_S)
        return replicas

    async def until_told(self, *words: str, since: int = 0, patience_s: float) -> None:
        """Returns when the present control plane has logged one of these, beyond its first `since` bytes."""
        deadline_s = time.monotonic() + patience_s
        while not any(word in self.said()[since:] for word in words):
            if self.plane.poll() is not None:
                raise RuntimeError(f"the service ended: {self.said()[-1000:]}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"nobody said {words[0]!r}: {self.said()[-1000:]}")
            await asyncio.sleep(LOOK_S)

    async def undertaken(self, patience_s: float) -> bool:
        """Returns when the change that the present control plane made is over: whether it went well."""
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            steps = await asyncio.to_thread(self._get, "/admin/steps") or {"lines": [], "good": None}
            if steps["lines"] and steps["good"] is not None:
                return bool(steps["good"])
            await asyncio.sleep(LOOK_S)
        raise TimeoutError(f"the change did not end: {self.said()[-1000:]}")

    def said(self) -> str:
        """The log of the present control plane."""
        return self._log(len(self.planes) - 1).read_text(errors="replace")

    async def end(self) -> list[str]:
        """Ends everything; returns what had to be killed, which is a fault of the service."""
        with suppress(ProcessLookupError):
            self.plane.terminate()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.plane.wait, END_S)
        for record in (self.state_dir / "replicas").glob("*.json"):
            self._sessions.add(json.loads(record.read_text())["identity"]["pid"])
        left = [process for process in psutil.process_iter() if self._ours(process)]
        named = [_named(process) for process in left]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)
        return named

    def _ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, ProcessLookupError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and os.getsid(process.pid) in self._sessions
        return False

    def _log(self, number: int) -> Path:
        return self.folder / f"serve-{number}.log"

    def _get(self, path: str) -> Fields | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path, headers={"x-api-key": admin_token.read(self.state_dir)})
            reply = connection.getresponse()
            body: Fields = json.loads(reply.read())
            return body if reply.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()


def _named(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)


def core_of(pid: int) -> int | None:
    """The process of a vLLM server that holds the GPU; None where the engine is one process."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if "EngineCore" in " ".join((child.name(), *child.cmdline())):
                return child.pid
    return None


def strike(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
