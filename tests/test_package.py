"""What an index would be given: built, looked into, installed into an empty folder and run from there."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.process, pytest.mark.slow]


def python(*argv: str | Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **env},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """The wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return (*folder.glob("*.whl"), *folder.glob("*.tar.gz"))


def test_an_index_would_take_both(built: Sequence[Path]) -> None:
    python("-m", "twine", "check", "--strict", *built)


def test_they_hold_the_package_and_nothing_else(built: Sequence[Path]) -> None:
    wheel = zipfile.ZipFile(built[0]).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in wheel} == {"autoglm_serve"}
    assert "autoglm_serve/py.typed" in wheel
    assert any(name.endswith("demo/files/vision/model.gguf") for name in wheel)
    with tarfile.open(built[1]) as sdist:
        top = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    assert not {"tests", "training", "benchmarks"} & top
    assert {"src", "README.md", "LICENSE", "pyproject.toml"} <= top


def test_what_is_installed_runs_without_the_repository(built: Sequence[Path], tmp_path: Path) -> None:
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, built[0])
    where = "import autoglm_serve; print(autoglm_serve.__file__)"
    assert python("-c", where, PYTHONPATH=str(tmp_path)).startswith(str(tmp_path))
    planned = python("-m", "autoglm_serve", "plan", "--engine", "llama_cpp", PYTHONPATH=str(tmp_path))
    assert "llama.cpp" in planned
