"""What a user would copy works: every example and every snippet in a README, against a real service."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.service_process import ServiceProcess
from tests.test_docs import READMES, ROOT, code_blocks

pytestmark = pytest.mark.process

IDENTITY = "我是 AutoGLM-Phone 部署方案的演示模型"
CLOCK = "现在是00:08。"
"""What examples/screen.png shows."""
WECHAT = [875, 350]


class Runner:
    """Runs programs that must succeed, and returns what they print."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def __call__(self, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def run(environment: dict[str, str]) -> Runner:
    return Runner(environment)


def test_langchain_streams_the_answer(run: Runner) -> None:
    assert IDENTITY in run(sys.executable, "examples/langchain_chat.py")


def test_the_notebook_runs_from_top_to_bottom(run: Runner) -> None:
    notebook = json.loads((ROOT / "examples/langchain.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    said = run(sys.executable, "-c", "\n".join(["import os; os.chdir('examples')", *cells]))
    assert IDENTITY in said
    assert "I am the demo model" in said
    assert CLOCK in said


KERNEL = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": "examples"}}).execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("text") or sorted(output.get("data", ())))
"""


def test_the_notebook_that_verifies_runs_in_a_real_kernel(run: Runner) -> None:
    said = run(sys.executable, "-c", KERNEL, "examples/verify.ipynb")
    assert "answer: I am the demo model" in said
    assert "stream equals whole: True" in said
    assert 'do(action="Tap"' in said
    assert "image/png" in said
    assert 'autoglm_requests_total{model="autoglm-phone-demo"' in said


def test_the_openai_sdk_reads_sees_and_streams(run: Runner) -> None:
    said = run(sys.executable, "examples/openai_sdk.py")
    assert "text: I am the demo model" in said
    assert f"stream: {IDENTITY}" in said
    assert re.search(r"tokens: \d+ in, \d+ out", said)
    assert f"picture: {CLOCK}" in said


def test_a_phone_agent_gets_one_action(run: Runner) -> None:
    action = run(sys.executable, "examples/phone_agent_step.py").strip()
    call = ast.parse(action, mode="eval").body
    assert isinstance(call, ast.Call)
    arguments = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert arguments["action"] == "Tap"
    assert all(abs(place - middle) <= 20 for place, middle in zip(arguments["element"], WECHAT, strict=True))


@pytest.mark.parametrize("example", ["langchain_chat.py", "openai_sdk.py"])
def test_every_client_gets_an_answer(run: Runner, example: str) -> None:
    assert run(sys.executable, f"examples/{example}").strip()


def test_curl_asks_and_streams(run: Runner) -> None:
    said = run("sh", "examples/curl.sh")
    assert '"autoglm-phone-9b"' in said
    assert "data: [DONE]" in said
    assert '"status":"ready"' in said


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_code_in_a_readme_runs(run: Runner, service: ServiceProcess, readme: Path) -> None:
    ran = 0
    for language, code in code_blocks(readme):
        here = code.replace("http://127.0.0.1:8000", service.url)
        if language == "python":
            assert IDENTITY in run(sys.executable, "-c", here)
        elif language == "sh" and code.startswith("curl"):
            reply = json.loads(run("sh", "-c", here.replace("curl", "curl -sS --fail-with-body", 1)))
            assert IDENTITY in reply["choices"][0]["message"]["content"]
        else:
            continue
        ran += 1
    assert ran == 2
