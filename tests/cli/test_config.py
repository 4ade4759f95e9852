"""`autoglm config`: every effective value and its origin, and the reference in docs/."""

import json
import os
from pathlib import Path

import pytest

from autoglm_serve.cli.config import RunningSettings, as_json, as_table, reference
from autoglm_serve.cli.main import main
from autoglm_serve.config.options import Options, declared
from autoglm_serve.config.sources import Provenance, load
from autoglm_serve.core.errors import ExitCode


def loaded(tmp_path: Path) -> tuple[Options, Provenance]:
    (tmp_path / "autoglm.toml").write_text("# a comment\nreplicas = 3\nspeech = false\n", encoding="utf-8")
    return load({"port": "9000"}, {"HOME": str(tmp_path), "AUTOGLM_HOST": "0.0.0.0"}, tmp_path)


def test_the_table_has_one_line_an_option_with_its_value_and_origin(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in as_table(*loaded(tmp_path)).splitlines()]
    assert [line.split()[0] for line in lines[1:-2]] == [option.name for option in declared()]
    for line in (
        "port 9000 --port",
        "host 0.0.0.0 AUTOGLM_HOST",
        "replicas 3 autoglm.toml:2",
        "speech false autoglm.toml:3",
        "model (the bundled demo model) default",
    ):
        assert line in lines
    assert lines[-1] == f"file: {tmp_path / 'autoglm.toml'}"


def test_the_json_has_values_as_they_are(tmp_path: Path) -> None:
    shown = json.loads(as_json(*loaded(tmp_path)))
    assert shown["config_file"] == str(tmp_path / "autoglm.toml")
    assert shown["options"]["port"] == {"value": 9000, "source": "flag", "where": "--port"}
    assert shown["options"]["replicas"] == {"value": 3, "source": "file", "where": "autoglm.toml:2"}
    assert shown["options"]["model"] == {"value": None, "source": "default", "where": "default"}


def test_what_a_running_service_goes_by_is_shown_with_what_would_hold_here(tmp_path: Path) -> None:
    options, provenance = loaded(tmp_path)
    values = json.loads(
        json.dumps({each.name: getattr(options, each.name) for each in declared()}, default=str)
    )
    running = RunningSettings(url="http://x", values={**values, "replicas": 5, "upstream": ["a", "b"]})
    table = [" ".join(line.split()) for line in as_table(options, provenance, running).splitlines()]
    assert "replicas 5 its own flags, variables or file; here 3 (autoglm.toml:2)" in table
    assert "port 9000 --port" in table
    assert any(line.startswith("upstream a,b its own") for line in table)
    assert table[-2] == "in force: at http://x, which runs"
    shown = json.loads(as_json(options, provenance, running))
    assert shown["running"] == "http://x"
    assert shown["options"]["replicas"] == {"value": 5, "source": "running", "where": "http://x"}
    assert shown["options"]["speech"] == {"value": False, "source": "file", "where": "autoglm.toml:3"}


def test_the_reference_has_every_option_once() -> None:
    text = reference()
    for option in declared():
        assert text.count(f"\n| `{option.name}` |") == 1


@pytest.mark.parametrize("argv", [["config"], ["config", "show"], ["config", "show", "--json"]])
def test_show_is_the_default(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in [name for name in os.environ if name.startswith(("AUTOGLM_", "XDG_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(argv) == ExitCode.OK
    assert "127.0.0.1" in capsys.readouterr().out


def test_reference_prints_what_docs_carry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "reference"]) == ExitCode.OK
    assert capsys.readouterr().out == reference()
