"""A service for the examples, started as a person starts it: `autoglm serve`, bundled model, real engine."""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from autoglm_serve.demo import demo_model

START_S = 60.0
UNTRAINED = "dd5411a3f3da51f736c2b33ba82c436f9957d258fb8ea77b4a77aa2daae9180f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service under the names of the demo and of the real model."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What an example needs to find it."""
        return {**os.environ, "OPENAI_BASE_URL": f"{self.url}/v1", "LANGSMITH_TRACING": "false"}


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    argv = [
        *(sys.executable, "-m", "autoglm_serve.cli.main", "serve", "--port", "0", "--replicas", "1"),
        *("--served-model-name", "autoglm-phone-demo,autoglm-phone-9b"),
        *("--state-dir", str(folder), "--log-format", "json"),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOGLM_")}
    with subprocess.Popen(argv, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Service(url=_announced_url(process))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(timeout=30) == 0
            finally:
                process.kill()


@pytest.fixture
def trained() -> None:
    """For tests of what is said: skips them while the bundled model is the untrained checkpoint."""
    if hashlib.sha256(demo_model().gguf.read_bytes()).hexdigest() == UNTRAINED:
        pytest.skip("the bundled model is not trained yet")


def _announced_url(process: subprocess.Popen[str]) -> str:
    """The address in the log; the rest of the log is read on, so that the service never blocks on it."""
    assert process.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()

    def read(stream: Iterator[str]) -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, args=(process.stderr,), daemon=True).start()
    said = []
    while (line := lines.get(timeout=START_S)) is not None:
        said.append(line)
        entry = json.loads(line) if line.startswith("{") else {}
        if "url" in entry:
            return str(entry["url"])
    raise AssertionError("the service ended before it served:\n" + "".join(said))
