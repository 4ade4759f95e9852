"""Runs the whole service for a test, as a person starts it: `autoglm serve`, real workers, real engines.

    with running_service("--replicas", "2") as service:
        service.ask("POST", "/v1/chat/completions", {...})

The calls block, and return when what they wait for has happened; nothing sleeps. Whatever the test did, no
process of the service is left when the block ends.
"""

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import psutil

from autoglm_serve.launch import admin_token

PATIENCE_S = 60.0
Reply = tuple[int, dict[str, str], bytes]


@dataclass(kw_only=True)
class ServiceProcess:
    """A running service."""

    process: subprocess.Popen[str]
    state_dir: Path
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    """Its log so far, one entry a line."""

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own: status, headers (lower case), body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=headers or {})
            reply = connection.getresponse()
            return reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()

    def administer(self, method: str, path: str, body: object = None) -> Reply:
        """As who may read the state directory."""
        return self.ask(method, path, body, {"x-api-key": admin_token.read(self.state_dir)})

    def chat(self, content: object = "hello", **fields: object) -> Reply:
        """One chat completion with a single user message."""
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}
        return self.ask("POST", "/v1/chat/completions", body)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.administer("GET", "/admin/status")[2])
        return status

    def replicas(self) -> list[dict[str, Any]]:
        replicas: list[dict[str, Any]] = self.status()["replicas"]
        return replicas

    def wait_for_replicas(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Return the replicas once they are as wanted."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition(replicas := self.replicas()):
            assert time.monotonic() < deadline_s, f"the replicas never got there: {replicas}"
        return replicas

    def wait_for_workers(self) -> None:
        """Return once every gateway worker takes connections."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (gateway := self.status()["gateway"])["serving"] < gateway["workers"]:
            assert time.monotonic() < deadline_s, f"the workers never got there: {gateway}"

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the service and wait for its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_S)

    def records(self) -> dict[str, int]:
        """The pids of its worker and replica processes, by the names that it keeps them under."""
        found = {}
        for path in (self.state_dir / "replicas").glob("*.json"):
            with suppress(FileNotFoundError):  # it has just ended
                found[path.stem] = json.loads(path.read_text())["identity"]["pid"]
        return found

    def pids(self) -> list[int]:
        return list(self.records().values())


@contextmanager
def running_service(
    *flags: str,
    state_dir: Path | None = None,
    serving: bool = True,
    inside: Sequence[str] = (),
    path: Sequence[Path] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[ServiceProcess]:
    """A service that answers requests when the block begins; or that was just started (`serving=False`).

    `inside` is a command that runs the one behind it; `path` is where all its Pythons look first.
    """
    with tempfile.TemporaryDirectory(prefix="autoglm-") as temporary:
        folder = state_dir or Path(temporary)
        port = () if "--port" in flags else ("--port", "0")
        argv = [
            *(*inside, sys.executable, "-m", "autoglm_serve", "serve", *port, *flags),
            *("--state-dir", str(folder), "--log-format", "json"),
        ]
        with subprocess.Popen(
            argv, cwd=temporary, env={**environment(path), **environ}, stderr=subprocess.PIPE, text=True
        ) as process:
            service = ServiceProcess(process=process, state_dir=folder)
            urls: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_read_log, args=(service, urls), daemon=True).start()
            try:
                if serving:
                    url = urls.get(timeout=PATIENCE_S)
                    assert url is not None, f"the service ended before it served: {service.log}"
                    service.url = url
                yield service
            finally:
                _end(service)


def _read_log(service: ServiceProcess, urls: "queue.Queue[str | None]") -> None:
    assert service.process.stderr is not None
    for line in service.process.stderr:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"message": line.rstrip()}
        service.log.append(entry)
        if "url" in entry:
            urls.put(entry["url"])
    urls.put(None)


def _end(service: ServiceProcess) -> None:
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGINT)  # SIGTERM would have it serve on for a while
        try:
            service.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            service.process.kill()
    for pid in service.pids():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def environment(path: Sequence[Path]) -> dict[str, str]:
    source = Path(__file__).resolve().parents[2] / "src"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOGLM_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, (*path, source)))}
