"""What is left to an engine in its box. Each is tried by a process that has gone into one."""

import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.engine_process import REPOSITORY
from tests.fakes.other_account import AS_ROOT

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="its calls are not known"),
]

IN_A_BOX = """
import ctypes, os, resource, socket, subprocess, sys, tempfile
from pathlib import Path
from autoglm_serve.engines.hosts.box import Sandbox, confine
model, written = map(Path, sys.argv[1:3])
starts = tuple(map(Path, sys.argv[4:]))
lacks = confine(Sandbox(reads=(model,), writes=(written,), network=sys.argv[3] == "network", starts=starts))
if any("Landlock" in lack for lack in lacks): print("no landlock"); sys.exit()
assert not lacks, lacks
def tried(what, *arguments):
    try: return what(*arguments) or "done"
    except OSError as error: return type(error).__name__
"""


@pytest.fixture
def folders(tmp_path: Path) -> Mapping[str, Path]:
    made = {name: tmp_path / name for name in ("model", "written", "secret")}
    for folder in made.values():
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    return made


def in_a_box(
    folders: Mapping[str, Path], program: str, *, network: bool = False, starts: tuple[str, ...] = ()
) -> str:
    words = (str(folders["model"]), str(folders["written"]), "network" if network else "none", *starts)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_BOX + program, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() == "no landlock":
        pytest.skip("the kernel has no Landlock")
    return done.stdout.strip()


def test_no_address_of_any_network_is_reached(folders: Mapping[str, Path]) -> None:
    program = "print(*(tried(socket.socket, family) for family in (socket.AF_INET, socket.AF_INET6)))"
    assert in_a_box(folders, program) == "PermissionError PermissionError"


def test_one_that_listens_on_a_port_may(folders: Mapping[str, Path]) -> None:
    assert "PermissionError" not in in_a_box(folders, "print(tried(socket.socket))", network=True)


def test_sockets_of_its_own_folder_and_threads_work(folders: Mapping[str, Path]) -> None:
    program = """
import threading
place = socket.socket(socket.AF_UNIX)
print(tried(place.bind, sys.argv[2] + "/s"), tried(place.listen))
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
"""
    assert in_a_box(folders, program) == "done done\nthread"


def test_no_program_is_started(folders: Mapping[str, Path]) -> None:
    program = "print(tried(subprocess.run, ['/bin/true']), tried(os.execv, '/bin/true', ['true']))"
    assert in_a_box(folders, program) == "PermissionError PermissionError"


def test_the_one_program_that_it_needs_is_started_in_the_same_box(folders: Mapping[str, Path]) -> None:
    program = """
print(tried(subprocess.run, ["/bin/true"]))
tries = "import socket\\ntry: socket.socket()\\nexcept OSError as error: print(error.strerror)"
print(subprocess.run([sys.executable, "-c", tries], capture_output=True, text=True).stdout.strip())
"""
    said = in_a_box(folders, program, starts=(sys.executable,))
    assert said == "PermissionError\nPermission denied"


def test_only_the_model_is_read_and_only_its_own_folder_is_written(folders: Mapping[str, Path]) -> None:
    program = """
secret = model.parent / "secret/file"
print((model / "file").read_text(), tried(secret.read_text), tried(os.listdir, secret.parent))
print(tried((model / "file").write_text, "x"), tried(secret.write_text, "x"), tried(secret.unlink))
print((written / "new").write_text("four"), tried(open, "/etc/hostname"))
"""
    assert in_a_box(folders, program).split("\n") == [
        "model PermissionError PermissionError",
        "PermissionError PermissionError PermissionError",
        "4 PermissionError",
    ]


@AS_ROOT
def test_root_is_none_in_there(folders: Mapping[str, Path]) -> None:
    program = """
print(tried(os.chown, sys.argv[2] + "/file", 1, 1), tried(os.setuid, 1), tried(os.nice, -5))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), libc.mount(b"x", b"/mnt", b"tmpfs", 0, None), libc.ptrace(16, 1, 0, 0))
"""
    assert in_a_box(folders, program) == "PermissionError PermissionError PermissionError\n-1 -1 -1"


def test_there_is_no_way_to_more_privileges_or_to_a_dump(folders: Mapping[str, Path]) -> None:
    program = """
status = Path("/proc/self/status").read_text()
print("NoNewPrivs:\\t1" in status, resource.getrlimit(resource.RLIMIT_CORE))
print(resource.getrlimit(resource.RLIMIT_DATA)[1])
"""
    flags, most = in_a_box(folders, program).split("\n")
    assert flags == "True (0, 0)"
    assert 0 < int(most) != resource.RLIM_INFINITY


def test_a_model_in_somebody_elses_folder_is_read_by_root(folders: Mapping[str, Path]) -> None:
    (folders["model"] / "file").chmod(0o600)
    assert in_a_box(folders, "print((Path(sys.argv[1]) / 'file').read_text())") == "model"
