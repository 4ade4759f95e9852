"""The command: verbs, help, and what a person sees when something is wrong."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import autoglm_serve.__main__
from autoglm_serve import __version__
from autoglm_serve.cli import config
from autoglm_serve.cli.main import VERBS, Verb, main
from autoglm_serve.core.errors import ExitCode


@pytest.fixture(autouse=True)
def empty_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No config file, no variable of ours: what the machine has set must not matter here."""
    for variable in [name for name in os.environ if name.startswith(("AUTOGLM_", "XDG_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoglm_serve.cli.main", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=30,
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_knows_few_characters_gets_what_it_can_show(encoding: str) -> None:
    argv = ["plan", "--hardware", "rtx4090:1", "--model", "zai-org/AutoGLM-Phone-9B", "--explain"]
    told = subprocess.run(
        [sys.executable, "-m", "autoglm_serve", *argv],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert told.returncode == ExitCode.OK, told.stderr


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == ExitCode.OK
    shown = capsys.readouterr().out
    assert all(f"autoglm {verb.name}" in shown for verb in VERBS)


def test_an_unknown_verb_is_a_usage_error_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sevre"]) == ExitCode.USAGE
    assert "there is no 'sevre'. Did you mean serve?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_explains_itself(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([verb.name, "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: autoglm {verb.name}")


@pytest.mark.parametrize("verb", ["status", "restart"])
def test_who_connects_is_not_told_to_listen(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert "The TCP port that the service listens on. [8000]" in shown
    assert "to listen on. " not in shown


def test_an_unknown_flag_is_a_usage_error_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["config", "--prot", "3"])
    assert leaving.value.code == ExitCode.USAGE
    assert "there is no flag --prot. Did you mean --port?" in capsys.readouterr().err


def test_a_flag_far_from_any_is_not_guessed_at(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--api-key", "sk"])
    assert "Did you mean" not in capsys.readouterr().err


def test_a_switch_takes_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["config", "--speech=false"])
    assert leaving.value.code == ExitCode.USAGE
    assert "--speech takes no value; --speech or --no-speech says it all" in capsys.readouterr().err


def test_flags_are_never_abbreviated() -> None:
    """A script that leans on --por breaks on the day --portal is added."""
    with pytest.raises(SystemExit):
        main(["config", "--por", "3"])


def test_a_persons_mistake_is_plain_lines_and_an_exit_code_of_its_own() -> None:
    done = command("config", "--port", "many")
    assert done.returncode == ExitCode.CONFIG
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "autoglm: --port: 'many' is not a whole number from 0 to 65535.",
        "Next: `autoglm config reference` explains every option.",
    ]


def test_who_asked_for_json_reads_a_mistake_as_json_too() -> None:
    done = command("config", "--json", "--port", "many")
    assert done.returncode == ExitCode.CONFIG
    told = json.loads(done.stdout)
    assert told["problem"] == "--port: 'many' is not a whole number from 0 to 65535."
    assert told["next_step"].startswith("`autoglm config reference`")
    assert done.stderr.startswith("autoglm: --port: 'many'")


def test_what_follows_two_dashes_is_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--port", "1", "--", "--port", "2"]) == ExitCode.OK
    shown = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["port", "1", "--port"] for line in shown)
    assert any(line.split() == ["engine_args", "--port", "2", "--"] for line in shown)


def test_an_interrupt_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "run", interrupted)
    assert main(["config"]) == ExitCode.STOPPED_AT_ONCE


def test_an_interrupt_while_python_imports_is_as_quiet(tmp_path: Path) -> None:
    """A module that the command imports is, here, one that is interrupted."""
    (tmp_path / "argparse.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "autoglm_serve", "version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.STOPPED_AT_ONCE, "", "")


def test_the_installed_command_begins_there_too() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"autoglm": f"{autoglm_serve.__main__.__name__}:main"}


def test_a_reader_that_leaves_early_is_no_error() -> None:
    shell = f"{sys.executable} -m autoglm_serve.cli.main config reference | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_flag(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == ExitCode.OK
    assert capsys.readouterr().out == f"autoglm-serve {__version__}\n"


def test_a_light_verb_imports_nothing_heavy() -> None:
    program = "import sys; from autoglm_serve.cli.main import main; main(['version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydantic", "asyncio", "rich", "uvloop"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("platform", "verb", "runs"),
    [
        ("linux", "serve", True),
        ("darwin", "serve", False),
        ("darwin", "chat", True),
        ("win32", "chat", False),
        ("freebsd14", "status", False),
    ],
)
def test_what_runs_on_other_systems_is_said_before_anything_is_imported(
    platform: str, verb: str, runs: bool
) -> None:
    assert autoglm_serve.__main__.runs_here(platform, verb) is runs


def test_another_system_gets_a_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "argv", ["autoglm", "serve"])
    assert autoglm_serve.__main__.main() == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert "this is Windows" in told
    assert "WSL2" in told
