"""The two commands: what they set up, when they do it again, and what they say when they cannot.

The scripts really run, in a copy of the repository's top, with a Python that only notes what it is asked.
"""

import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.test_docs import ROOT

PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$STUBS/autoglm" "$3/bin/autoglm" ;;
"-m pip install "*) echo "$*" >>"$STUBS/installs"; exit "${PIP_STATUS:-0}" ;;
"-m pip --version") [ "$(basename "$0")" = python ] ;;
"-c import ensurepip, venv") exit "${ENSUREPIP_STATUS:-0}" ;;
*version_info*print* | *print*version_info*) echo python3.12-venv ;;
esac
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A copy of the repository's top, and stubs for what the scripts call."""

    top: Path
    stubs: Path

    def run(self, script: str, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.top / script), *flags],
            cwd="/",
            env={
                "PATH": f"{self.stubs}:/usr/bin:/bin",
                "PYTHON": "stub-python",
                "STUBS": str(self.stubs),
                **env,
            },
            capture_output=True,
            text=True,
            timeout=30,
        )

    def serve(self, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("run_autoglm_server.sh", *flags, **env)

    @property
    def installs(self) -> list[str]:
        log = self.stubs / "installs"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def stub(self, name: str, script: str) -> None:
        path = self.stubs / name
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    top = tmp_path / "a checkout"
    (top / "scripts").mkdir(parents=True)
    for name in (
        "run_autoglm_server.sh",
        "run_tests.sh",
        "scripts/venv.sh",
        "pyproject.toml",
        "constraints.txt",
        "requirements.lock",
    ):
        shutil.copy(ROOT / name, top / name)
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    made = Checkout(top=top, stubs=stubs)
    made.stub("stub-python", PYTHON)
    made.stub("autoglm", '#!/bin/sh\necho "$@"\n')
    made.stub("nvidia-smi", "#!/bin/sh\nexit 9\n")
    made.stub("id", "#!/bin/sh\necho 1000\n")
    return made


def with_gpu(checkout: Checkout) -> Checkout:
    checkout.stub("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA GeForce RTX 4090'\n")
    return checkout


no_gpu_here = pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").exists(), reason="this machine has a GPU")


@no_gpu_here
def test_without_a_gpu_what_is_locked_is_installed_by_its_hashes_and_nothing_more(
    checkout: Checkout,
) -> None:
    done = checkout.serve("--port", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "serve --port 1\n"
    locked, own = checkout.installs
    assert locked.endswith(f"--require-hashes --requirement {checkout.top}/requirements.lock")
    assert own.endswith(f"--no-deps --editable {checkout.top}")


def test_with_a_gpu_vllm_is_installed_and_pins_its_own(checkout: Checkout) -> None:
    assert with_gpu(checkout).serve().returncode == 0
    (install,) = checkout.installs
    assert install.endswith(f"--editable {checkout.top}[vllm]")
    assert "--constraint" not in install


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (["--engine", "llama_cpp"], {}),
        (["--engine=external", "--upstream", "http://127.0.0.1:1"], {}),
        ([], {"AUTOGLM_ENGINE": "llama_cpp"}),
    ],
)
def test_vllm_is_not_installed_for_an_engine_that_is_not_vllm(
    checkout: Checkout, flags: list[str], env: dict[str, str]
) -> None:
    assert with_gpu(checkout).serve(*flags, **env).returncode == 0
    assert "[vllm]" not in "".join(checkout.installs)


def test_flags_reach_the_service_as_they_are(checkout: Checkout) -> None:
    checkout.stub("autoglm", '#!/bin/sh\nprintf "<%s>" "$@"\n')
    done = checkout.serve("--model", "a b.gguf", "--", "--chat-template", "it's $HOME")
    assert done.stdout == "<serve><--model><a b.gguf><--><--chat-template><it's $HOME>"


def test_the_second_start_installs_nothing_and_says_nothing(checkout: Checkout) -> None:
    checkout.serve()
    again = checkout.serve()
    assert again.stderr == ""
    assert len(checkout.installs) == 2


def test_what_is_installed_follows_pyproject(checkout: Checkout) -> None:
    checkout.serve()
    with (checkout.top / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# one more dependency\n")
    checkout.serve()
    assert len(checkout.installs) == 4


def test_an_install_with_vllm_is_enough_for_those_who_need_less(checkout: Checkout) -> None:
    with_gpu(checkout).serve()
    checkout.serve("--engine", "llama_cpp")
    assert len(checkout.installs) == 1


def test_an_install_that_failed_is_tried_again(checkout: Checkout) -> None:
    failed = checkout.serve(PIP_STATUS="1")
    assert failed.returncode == 1
    assert "Next: check the network" in failed.stderr
    assert checkout.serve().returncode == 0
    assert len(checkout.installs) == 3  # what is locked twice, as it failed once, and then our own


def test_without_a_python_it_says_what_to_install(checkout: Checkout) -> None:
    done = checkout.serve(PYTHON="no-such-python")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Next: apt-get install python3")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_where_it_may_not_write_it_says_so_and_touches_nothing(checkout: Checkout) -> None:
    checkout.top.chmod(0o555)
    done = checkout.serve()
    checkout.top.chmod(0o755)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0] == f"No virtual environment can be made in {checkout.top}/.venv."
    assert said[-1].startswith("Next: run this as the user who owns")


def test_without_ensurepip_it_names_debians_package(checkout: Checkout) -> None:
    done = checkout.serve(ENSUREPIP_STATUS="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Next: sudo apt-get install python3.12-venv, then run this again."
    assert not (checkout.top / ".venv").exists()


@pytest.mark.parametrize("tier", ["--gpu"])
def test_a_tier_that_is_not_there_says_so(checkout: Checkout, tier: str) -> None:
    done = checkout.run("run_tests.sh", tier)
    assert done.returncode == 1
    assert f"the tier {tier} is not there yet" in done.stderr


@pytest.mark.parametrize(
    "script", ["run_autoglm_server.sh", "run_tests.sh", "scripts/venv.sh", "scripts/vllm_cpu.sh", ".ci/run"]
)
def test_the_scripts_parse_and_can_be_executed(script: str) -> None:
    assert subprocess.run(["sh", "-n", str(ROOT / script)], check=False).returncode == 0
    assert os.access(ROOT / script, os.X_OK) or script.startswith("scripts/")


def test_the_lock_has_the_versions_that_were_tested_each_with_hashes() -> None:
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    entries = re.findall(r"^([\w.-]+)==(\S+)([^\n]*\\\n(?:    --hash=sha256:[0-9a-f]{64}[ \\]*\n)+)",
                         (ROOT / "requirements.lock").read_text(), re.MULTILINE)  # fmt: skip
    locked = {name: version for name, version, _ in entries}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = {re.split(r"[^\w-]", line)[0] for line in project}
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in tested.items()}
    assert needed <= locked.keys()
    assert {name: version for name, version in locked.items() if normal.get(name, version) != version} == {}


def test_what_builds_the_package_is_one_version() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", each) for each in build)
