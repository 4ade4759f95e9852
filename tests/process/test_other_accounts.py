"""Another account of the same machine: what it finds of a running service, and what it can do to it."""

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.other_account import AS_ROOT, tries
from tests.process.service_process import ServiceProcess, running_service

pytestmark = [pytest.mark.process, AS_ROOT]

OPEN_TO_ALL = ("/bin/sh", "-c", 'umask 000; exec "$@"', "sh")
"""A service that is started by somebody who closes nothing."""

LOOKS_ROUND = """
def tried(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return type(error).__name__
    return "done"
said = {"folder": tried(os.listdir, sys.argv[1]), "memory": tried(open, f"/proc/{sys.argv[2]}/environ")}
for path in sys.argv[3:]:
    said[path] = tried(socket.socket(socket.AF_UNIX).connect, path) + " " + tried(open, path)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with tempfile.TemporaryDirectory(prefix="autoglm-") as folder:
        Path(folder).chmod(0o755)  # anybody may look for the state directory
        with running_service(inside=OPEN_TO_ALL, state_dir=Path(folder) / "state") as running:
            yield running


def replicas(service: ServiceProcess) -> list[psutil.Process]:
    return [psutil.Process(pid) for name, pid in service.records().items() if name.startswith("r")]


def test_whatever_the_umask_nothing_of_it_is_open_to_others(service: ServiceProcess) -> None:
    there = [service.state_dir, *service.state_dir.rglob("*")]
    assert any(stat.S_ISSOCK(path.lstat().st_mode) for path in there)
    assert [path for path in there if path.lstat().st_mode & 0o077] == []


def test_no_engine_has_a_port_that_could_be_taken(service: ServiceProcess) -> None:
    listening = [
        each for one in replicas(service) for each in one.net_connections("inet") if each.status == "LISTEN"
    ]
    assert replicas(service)
    assert listening == []


def test_another_account_reads_and_reaches_nothing_of_it(service: ServiceProcess) -> None:
    doors = [str(path) for path in service.state_dir.rglob("*") if not path.is_dir()]
    there = tries(LOOKS_ROUND, str(service.state_dir), str(replicas(service)[0].pid), *doors)
    said = json.loads(there)
    assert said.pop("folder") == said.pop("memory") == "PermissionError"
    assert set(said.values()) == {"PermissionError PermissionError"}


def test_what_it_reads_of_an_engine_in_the_process_list_does_not_help_it(service: ServiceProcess) -> None:
    before = {one.pid for one in replicas(service)}
    words = [word for one in replicas(service) for word in one.cmdline()]
    sockets = [Path(words[at + 1]) for at, word in enumerate(words) if word == "--uds"]
    assert sockets
    takes = "try: os.unlink(sys.argv[1])\nexcept OSError as error: print(error.strerror)"
    assert tries(takes, str(sockets[0])) == "Permission denied"
    assert service.chat("hello")[0] == 200
    assert {one.pid for one in replicas(service)} == before


def test_a_socket_goes_with_its_process(service: ServiceProcess) -> None:
    def sockets() -> set[Path]:
        return set((service.state_dir / "engines").iterdir())

    victim, before = service.records()["r0"], sockets()
    os.kill(victim, 9)
    service.wait_for_replicas(lambda all: all[0]["state"] == "ready" and all[0]["pid"] not in (None, victim))
    assert len(sockets()) == len(before)
    assert sockets() != before
