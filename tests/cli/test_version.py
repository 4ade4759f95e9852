"""`autoglm version`."""

import json

import pytest

from autoglm_serve import __version__
from autoglm_serve.cli.main import main
from autoglm_serve.core.errors import ExitCode


def test_a_person_sees_the_version_and_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == ExitCode.OK
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"autoglm-serve {__version__}"
    assert second.startswith("Python 3.")
    assert third.startswith("engines: ")


def test_a_script_reads_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == __version__
    assert {"python", "platform", "engines"} < set(facts)
