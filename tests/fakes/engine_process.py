"""Starts the faulty engine as a process for one test, and asks it what it saw.

    with running_engine("--chunks", "4") as engine:
        ...                                  # talk to engine.url
        seen = engine.seen(ended=1)          # waits for the outcome, never sleeps
        assert seen[0]["outcome"] == "client_gone"

The calls block: in a test whose own loop must go on, wrap them in `asyncio.to_thread`. The process is gone
when the block ends, and the kernel ends it if the test itself is killed.
"""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProcess:
    """A running faulty engine."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def seen(self, *, begun: int = 0, ended: int = 0, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """The requests so far; waits until so many have begun or ended."""
        path = f"/_seen?begun={begun}&ended={ended}&timeout_s={timeout_s}"
        requests: list[dict[str, Any]] = self.ask("GET", path)["requests"]
        return requests

    def control(self, **fields: Any) -> None:
        """Switches faults and health while it runs: fault, times, health, clear."""
        self.ask("POST", "/_control", fields)

    def ask(self, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=json.dumps(fields) if fields is not None else None)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def kill(self) -> None:
        """Ends it at once, also when it was frozen; returns when it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)


@contextmanager
def running_engine(*flags: str) -> Iterator[EngineProcess]:
    """An engine process that listens when the block begins; see `faulty_engine --help` for the flags."""
    argv = [sys.executable, "-m", "tests.fakes.faulty_engine", "--die-with-parent", *flags]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield EngineProcess(process=process, port=_announced_port(process))
        finally:
            process.kill()


def _announced_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening on "):
            return int(line.rsplit(":", 1)[1])
    raise AssertionError(f"the engine ended with status {process.wait()} before it listened")
