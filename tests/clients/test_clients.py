"""Clients that people use, unmodified, each with what it is used for and with a replica lost in mid-stream.

What is installed for the tests (OpenAI's and LangChain's) is in every run. `sh run_tests.sh --clients`
installs the others and runs all; docs/compatibility.md has the table.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, running_gateway

pytestmark = pytest.mark.process

HERE = Path(__file__).parent
CLIENTS = os.environ.get("AUTOGLM_TEST_CLIENTS", "")
"""Where scripts/clients.sh has put them."""
TEXT = "tok0 tok1 tok2 tok3 tok4 tok5 tok6 tok7 "
ANSWERS = {
    "tools": {"call": "tap", "arguments": {"x": 1}},
    "structured": {"value": {"x": 1}},
    "models": {"names": ["demo", "alias"], "sees": True, "loaded": 1},
}
CODES = {"openai": ("wrong_type", 400)}
ALL = ("chat", "stream", "killed", "picture", "tools", "structured", "error")
IN_EVERY_RUN = {"openai": (*ALL, "responses"), "langchain-openai": ALL}
PYTHON = {
    **IN_EVERY_RUN,
    "litellm": ALL,
    "anthropic": ("stream", "error"),
    "llama-index": ("chat", "stream", "killed"),
    "instructor": ("tools", "structured"),
    "ollama": ("chat", "stream", "killed", "picture", "structured", "error", "generate", "models"),
}
NODE = {
    "openai-node": ("chat", "stream", "killed", "tools", "structured", "error"),
    "openai-node-4": ("chat", "stream", "killed", "tools", "structured", "error"),
    "ai-openai": ("stream", "error"),
    "ai-openai-compatible": ("chat", "stream", "killed", "tools", "error"),
}


def commands() -> Iterator[tuple[str, str, str, list[str]]]:
    """Label, client, feature, and the command that asks."""
    script = str(HERE / "drive.py")
    for client, features in (PYTHON if CLIENTS else IN_EVERY_RUN).items():
        python = f"{CLIENTS}/new/bin/python" if CLIENTS else sys.executable
        yield from ((client, client, feature, [python, script]) for feature in features)
    if not CLIENTS:
        return
    yield from (("openai 1", "openai", feature, [f"{CLIENTS}/old/bin/python", script]) for feature in ALL)
    for client, features in NODE.items():
        yield from ((client, client, feature, ["node", f"{CLIENTS}/js/drive.mjs"]) for feature in features)


@pytest.fixture(scope="module")
def replicas() -> Iterator[tuple[EngineProcess, EngineProcess]]:
    with running_engine("--chunks", "8") as first, running_engine("--chunks", "8") as second:
        yield first, second


@pytest.fixture
def gateway(replicas: tuple[EngineProcess, EngineProcess], tmp_path: Path) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path, [engine.url for engine in replicas]) as process:
        yield process


def said(command: list[str]) -> dict[str, Any]:
    """What the client got."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("client", "feature", "command"),
    [pytest.param(*rest, id=f"{label}-{rest[1]}") for label, *rest in commands()],
)
def test_it_gets_what_it_came_for(
    client: str,
    feature: str,
    command: list[str],
    gateway: GatewayProcess,
    replicas: tuple[EngineProcess, EngineProcess],
) -> None:
    asked = [*command, client, feature, f"http://127.0.0.1:{gateway.port}"]
    if feature == "killed":
        replicas[0].control(fault="reset:3", times=1)  # as a process that is killed: its connections break
        assert said(asked)["text"] == TEXT  # one of the two meets it
        assert said(asked)["text"] == TEXT
        assert gateway.metric("autoglm_recoveries_total") == 1
        return
    result = said(asked)
    if feature == "error":
        expected = CODES.get(client, ("model_not_found", 404))
        assert (result["code"], result["status"]) == expected
    elif feature in ANSWERS:
        assert result == ANSWERS[feature]
    else:
        assert result["text"] == TEXT
