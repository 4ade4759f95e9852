"""An engine is one file and a line: one more, added so to a copy of the package, is served like any."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import autoglm_serve
from tests.process.service_process import running_service

PACKAGE = Path(autoglm_serve.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[2]
TOY = '''
"""An engine for this test: a process that answers as the OpenAI API does."""

import os
import sys

from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts
from autoglm_serve.engines.base import Command, Engine, Listen


class Toy(Engine):
    name = option = "toy"
    title = "Toy"
    variables = ("TOY_",)

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        argv = (sys.executable, "-m", "tests.fakes.faulty_engine", *listen.flags, "--models", member.name)
        return Command(argv=(*argv, *member.plan.engine_args))

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        return Diagnosis(cause=ExitCause.UNKNOWN, summary="It ended.")
'''


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the package, in which `engines` has one file and one line more."""
    package = tmp_path / "src" / "autoglm_serve"
    package.mkdir(parents=True)
    for entry in PACKAGE.iterdir():
        if entry.name not in ("engines", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    shutil.copytree(PACKAGE / "engines", package / "engines")
    (package / "engines" / "toy.py").write_text(TOY)
    catalog = package / "engines" / "catalog.py"
    line = re.compile(r"^( +)LlamaCpp\(\),\n", re.MULTILINE)
    text, count = line.subn(r"\g<0>\1Toy(),\n", catalog.read_text())
    assert count == 1
    imported = "from autoglm_serve.engines.toy import Toy\n"
    catalog.write_text(
        text.replace("from autoglm_serve.engines.vllm", f"{imported}from autoglm_serve.engines.vllm")
    )
    return package.parent


def autoglm(source: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoglm_serve", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


def test_an_option_a_help_and_a_plan_know_it(source: Path) -> None:
    assert "toy" in autoglm(source, "config", "show", "--engine", "toy").stdout
    assert "toy" in autoglm(source, "config", "reference").stdout
    planned = autoglm(source, "plan", "--engine", "toy", "--emit", "command")
    assert "tests.fakes.faulty_engine" in planned.stdout, planned.stderr


@pytest.mark.process
def test_it_is_served(source: Path) -> None:
    with running_service("--engine", "toy", "--replicas", "1", path=(source, REPOSITORY)) as service:
        status, _, body = service.chat("hello")
        assert status == 200, body
        assert service.replicas()[0]["engine"] == "toy"
