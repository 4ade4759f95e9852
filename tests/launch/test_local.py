"""Real processes: started, recorded, found again, ended to the last member of their session."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from autoglm_serve.engines.base import Command
from autoglm_serve.launch.base import Exit
from autoglm_serve.launch.local import LISTENER, LocalLauncher, LocalProcess
from autoglm_serve.launch.ports import PortLease
from autoglm_serve.launch.process import MARK, ProcessIdentity, boot_id
from autoglm_serve.launch.records import Records, ReplicaRecord
from tests.fakes import session
from tests.fakes.leftovers import reap_leftovers

pytestmark = pytest.mark.process

DEADLINE_S = 20.0
ORPHAN = "setsid sleep 60 >/dev/null 2>&1 & echo $!"


def python(*code: str) -> Command:
    return Command(argv=(sys.executable, "-c", "\n".join(code)))


def family(*flags: str) -> Command:
    return Command(argv=(sys.executable, session.__file__, *flags))


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


async def said(process: LocalProcess, line: str = "alive") -> None:
    """Returns once the process has printed the line. A file tells nobody when it changes, hence the look."""
    while line not in process.log_path.read_text().splitlines():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def record_of(state_dir: Path, replica_id: str = "r0") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((state_dir / "replicas" / f"{replica_id}.json").read_text())
    return record


# --- starting


def test_exit_status_and_signal_are_told_apart(tmp_path: Path) -> None:
    async def story() -> None:
        launcher = LocalLauncher(tmp_path)
        by_itself = launcher.spawn("r0", python("raise SystemExit(7)"), 1)
        by_signal = launcher.spawn("r1", python("import os; os.kill(os.getpid(), 9)"), 2)
        assert await by_itself.exited() == Exit(code=7)
        assert await by_signal.exited() == Exit(signal=9)
        await by_itself.close()
        await by_signal.close()

    run(story)


def test_output_goes_to_the_log_and_nothing_is_read_from_us(tmp_path: Path) -> None:
    async def story() -> None:
        code = (
            "import sys",
            "print('out')",
            "print('err', file=sys.stderr)",
            "print(repr(sys.stdin.read()))",
        )
        process = LocalLauncher(tmp_path).spawn("r0", python(*code), 1)
        await process.exited()
        assert sorted(process.log_path.read_text().split()) == ["''", "err", "out"]
        await process.close()

    run(story)


def test_it_leads_a_session_of_its_own_with_default_signals(tmp_path: Path) -> None:
    async def story() -> None:
        code = (
            "import os, signal",
            "print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL)",
            "print(sorted(os.listdir('/proc/self/fd'))[:4])",
        )
        # Python itself ignores SIGPIPE in the child; the shell tells what it was given.
        process = LocalLauncher(tmp_path).spawn("r0", Command(argv=("/bin/sh", "-c", "trap; echo ok")), 1)
        await process.exited()
        assert process.log_path.read_text() == "ok\n"
        await process.close()
        process = LocalLauncher(tmp_path).spawn("r1", python(*code), 1)
        await process.exited()
        assert process.log_path.read_text().startswith("True")
        await process.close()

    run(story)


def test_no_descriptor_of_ours_is_inherited(tmp_path: Path) -> None:
    async def story() -> None:
        launcher = LocalLauncher(tmp_path)
        with PortLease(), (tmp_path / "open").open("w") as ours:
            shown = f"ls /proc/self/fd/{ours.fileno()} /proc/self/fd/{LISTENER} 2>&1 | grep -c 'No such'"
            process = launcher.spawn("r0", Command(argv=("/bin/sh", "-c", shown)), 1)
            await process.exited()
        assert process.log_path.read_text() == "2\n"
        await process.close()

    run(story)


def test_a_listener_is_inherited_where_it_is_promised(tmp_path: Path) -> None:
    async def story() -> None:
        code = (
            "import socket",
            f"listener = socket.socket(fileno={LISTENER})",
            "listener.accept()[0].send(b'hello')",
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            process = LocalLauncher(tmp_path).spawn("w0", python(*code), 1, listener=listener.fileno())
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
            await process.exited()
            await process.close()

    run(story)


def test_the_environment_of_a_command_is_added_to_ours(tmp_path: Path) -> None:
    async def story() -> None:
        launcher = LocalLauncher(tmp_path, environment={"PATH": os.environ["PATH"], "A": "1", "B": "1"})
        command = Command(argv=("/bin/sh", "-c", "echo $A$B"), env={"B": "2"})
        process = launcher.spawn("r0", command, 1)
        await process.exited()
        assert process.log_path.read_text() == "12\n"
        await process.close()

    run(story)


def test_a_program_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-engine is not installed"):
        LocalLauncher(tmp_path).spawn("r0", Command(argv=("no-such-engine",)), 1)
    assert Records(tmp_path).read_all() == ()


def test_the_last_logs_are_kept(tmp_path: Path) -> None:
    async def story() -> None:
        launcher = LocalLauncher(tmp_path)
        for number in range(6):
            process = launcher.spawn("r0", Command(argv=("/bin/echo", str(number))), 1)
            await process.exited()
            await process.close()

    run(story)
    logs = {path.name: path.read_text().strip() for path in (tmp_path / "logs").iterdir()}
    assert logs == {"r0.log": "5", "r0.log.1": "4", "r0.log.2": "3", "r0.log.3": "2"}


# --- the record


def test_it_is_recorded_while_it_runs_and_forgotten_after(tmp_path: Path) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family(), 4711)
        record = record_of(tmp_path)
        assert record["identity"]["pid"] == process.pid
        assert (record["port"], record["log_path"]) == (4711, str(process.log_path))
        assert record["argv"][1] == session.__file__
        await process.end(0)
        await process.exited()
        await process.close()
        assert Records(tmp_path).read_all() == ()

    run(story)


def test_the_program_does_not_run_before_its_record_is_on_disk(tmp_path: Path) -> None:
    """A folder that cannot be written to: the gate never opens, and the child is no zombie either."""
    ran = tmp_path / "ran"
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "replicas").write_text("a file where the folder should be")

    async def story() -> None:
        with pytest.raises(OSError, match="replicas"):
            LocalLauncher(tmp_path / "state").spawn("r0", Command(argv=("/usr/bin/touch", str(ran))), 1)

    before = set(psutil.Process().children())
    run(story)
    assert set(psutil.Process().children()) <= before
    assert not ran.exists()


def small_disk(at: Path) -> None:
    """A file system of some kilobytes; skips where none may be mounted."""
    at.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(at)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_it_runs_without_a_record_until_there_is_room(tmp_path: Path, caplog: Any) -> None:
    disk = tmp_path / "disk"
    small_disk(disk)

    async def story() -> None:
        launcher = LocalLauncher(disk / "state")
        fill(disk / "filler")
        process = launcher.spawn("r0", family(), 1)
        assert process.record.identity.alive
        assert Records(disk / "state").read_all() == ()
        exited = asyncio.create_task(process.exited())
        (disk / "filler").unlink()
        while not Records(disk / "state").has("r0"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert record_of(disk / "state")["identity"]["pid"] == process.pid
        await process.end(0)
        await exited
        await process.close()

    try:
        run(story)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert "r0" in caplog.text
    assert "without a record" in caplog.text


def test_a_record_that_somebody_deletes_is_written_again(tmp_path: Path) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path / "state").spawn("r0", family(), 1)
        exited = asyncio.create_task(process.exited())
        shutil.rmtree(tmp_path / "state")
        while not Records(tmp_path / "state").has("r0"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await process.end(0)
        await exited
        await process.close()
        assert Records(tmp_path / "state").read_all() == ()

    run(story)


# --- ending


@pytest.mark.parametrize("flags", [(), ("--child",)])
def test_asking_is_enough_for_a_process_that_obeys(tmp_path: Path, flags: tuple[str, ...]) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family(*flags), 1)
        await said(process)
        await process.end(10)
        assert await process.exited() == Exit(signal=signal.SIGTERM)
        assert process.record.identity.family() == ()
        await process.close()

    run(story)


def test_one_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family("--ignore-term", "--child"), 1)
        await said(process)
        began = time.monotonic()
        await process.end(0.3)
        assert 0.3 <= time.monotonic() - began < 5
        assert await process.exited() == Exit(signal=signal.SIGKILL)
        assert process.record.identity.family() == ()
        await process.close()

    run(story)


def test_what_a_leader_leaves_behind_is_ended_with_its_close(tmp_path: Path) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family("--child", "--leader-leaves"), 1)
        assert await process.exited() == Exit(code=3)
        assert len(process.record.identity.family()) == 1
        await process.close()
        assert process.record.identity.family() == ()

    run(story)


def daemons(process: LocalProcess) -> list[ProcessIdentity]:
    """Those that a process has said to have started in sessions of their own, with their children."""
    lines = [line.split() for line in process.log_path.read_text().splitlines()]
    pids = [int(word) for line in lines if line[0] == "daemon" for word in line[1:]]
    found = [identity for pid in pids if (identity := ProcessIdentity.of(pid)) is not None]
    assert len(found) == len(pids) > 0
    return found


@pytest.mark.parametrize("flags", [("--daemon",), ("--bare-daemon",), ("--daemon", "--ignore-term")])
def test_who_left_the_session_is_ended_with_it(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A worker that survives its engine would hold the GPU's memory."""

    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family(*flags), 1)
        await said(process)
        left = daemons(process)
        await process.end(0.5)
        assert not any(daemon.alive for daemon in left)
        await process.exited()
        await process.close()

    run(story)


def test_who_left_the_session_is_ended_when_its_engine_was_killed(tmp_path: Path) -> None:
    """By then nobody's parent tells."""

    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family("--daemon"), 1)
        await said(process)
        left = daemons(process)
        os.kill(process.pid, signal.SIGKILL)
        assert await process.exited() == Exit(signal=signal.SIGKILL)
        assert all(daemon.alive for daemon in left)
        await process.close()
        assert not any(daemon.alive for daemon in left)

    run(story)


def family_beside_a_copy(process: LocalProcess) -> list[int]:
    """The pids of its family while a stranger's shell runs a program with its variables."""
    script = """trap 'kill $!' TERM; env "$0" /bin/sh -c 'echo started; exec sleep 60' & wait"""
    argv = ("/bin/sh", "-c", script, f"{MARK}={process.record.identity.mark}")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        members = process.record.identity.family()
        shell.terminate()
    return [member.pid for member in members]


def test_who_has_copied_an_engines_variables_is_left_alone(tmp_path: Path) -> None:
    """To start by hand what the service starts, say."""

    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family(), 1)
        await said(process)
        assert family_beside_a_copy(process) == [process.pid]
        process.kill()
        await process.exited()
        await process.close()

    run(story)


def test_each_start_has_a_family_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        launcher = LocalLauncher(tmp_path)
        first, second = (launcher.spawn(name, family("--daemon"), 1) for name in ("r0", "r1"))
        await asyncio.gather(said(first), said(second))
        others = daemons(second)
        first.kill()
        await first.exited()
        await first.close()
        assert all(daemon.alive for daemon in others)
        second.kill()
        await second.exited()
        await second.close()
        assert not any(daemon.alive for daemon in others)

    run(story)


def test_kill_needs_no_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family("--ignore-term", "--child"), 1)
        await said(process)
        process.kill()
        assert await process.exited() == Exit(signal=signal.SIGKILL)
        await process.close()

    run(story)


# --- identity


def test_another_process_with_the_same_pid_is_not_ours() -> None:
    ours = ProcessIdentity.of(os.getpid())
    assert ours is not None
    assert ours.alive
    earlier = ProcessIdentity(pid=ours.pid, start_ticks=ours.start_ticks - 1, boot_id=ours.boot_id)
    other_boot = ProcessIdentity(pid=ours.pid, start_ticks=ours.start_ticks, boot_id="another")
    for stranger in (earlier, other_boot):
        assert not stranger.alive
        assert stranger.family() == ()


def test_a_pid_of_nobody_has_no_identity() -> None:
    assert ProcessIdentity.of(2**22 + 1) is None


def test_an_exit_is_noticed_of_a_process_that_is_not_our_child(tmp_path: Path) -> None:
    """What adoption after a restart of the control plane will need."""
    pid = int(subprocess.run(["/bin/sh", "-c", ORPHAN], capture_output=True, check=True).stdout)

    async def story() -> None:
        identity = ProcessIdentity.of(pid)
        assert identity is not None
        record = ReplicaRecord(id="r0", identity=identity, argv=("sleep",), port=1, log_path=tmp_path / "x")
        process = LocalProcess(record, os.pidfd_open(pid), Records(tmp_path))
        watching = asyncio.create_task(process.exited())
        await process.end(5)
        assert await watching == Exit()
        await process.close()

    run(story)


# --- orphans


def test_who_left_a_session_whose_leader_is_dead_is_an_orphan_too(tmp_path: Path) -> None:
    async def story() -> None:
        process = LocalLauncher(tmp_path).spawn("r0", family("--daemon", "--leader-leaves"), 1)
        await process.exited()
        left = daemons(process)
        assert [orphan.id for orphan in await reap_leftovers(tmp_path, grace_s=0.1)] == ["r0"]
        assert not any(daemon.alive for daemon in left)
        await process.close()

    run(story)


def test_orphans_are_found_by_their_records_and_ended(tmp_path: Path) -> None:
    """The service was killed: its records are there, and so are its processes, one of them headless."""

    async def story() -> None:
        launcher = LocalLauncher(tmp_path)
        whole = launcher.spawn("r0", family("--ignore-term"), 1)
        headless = launcher.spawn("r1", family("--child", "--leader-leaves"), 2)
        await asyncio.gather(said(whole), headless.exited())
        reaped = await reap_leftovers(tmp_path, grace_s=0.1)
        assert [orphan.id for orphan in reaped] == ["r0", "r1"]
        assert whole.record.identity.family() == headless.record.identity.family() == ()
        assert await reap_leftovers(tmp_path) == ()
        await whole.exited()
        await whole.close()
        await headless.close()

    run(story)


def test_a_record_whose_pid_is_somebody_elses_today_ends_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        bystander = LocalLauncher(tmp_path / "other").spawn("x", family(), 1)
        identity = ProcessIdentity(pid=bystander.pid, start_ticks=1, boot_id=boot_id())
        record = ReplicaRecord(id="r0", identity=identity, argv=(), port=1, log_path=tmp_path / "x")
        Records(tmp_path).write(record)
        assert await reap_leftovers(tmp_path) == ()
        assert bystander.record.identity.alive
        assert Records(tmp_path).read_all() == ()
        await bystander.end(0)
        await bystander.exited()
        await bystander.close()

    run(story)


# --- engines, of which a request may make anything


SHOWS = 'cat /proc/self/oom_score_adj; ulimit -c; echo "$TMPDIR"; echo "[$AUTOGLM_KEYS]"; echo "$OTHER"'


def test_an_engine_goes_before_us_leaves_no_dump_and_knows_no_keys(tmp_path: Path) -> None:
    async def story() -> None:
        environment = os.environ | {"AUTOGLM_KEYS": "sk-secret", "OTHER": "kept"}
        launcher = LocalLauncher(tmp_path, environment=environment)
        process = launcher.spawn("r0", Command(argv=("/bin/sh", "-c", SHOWS)), 1)
        await process.exited()
        said = process.log.read_new()
        await process.close()
        told.extend(said)

    told: list[str] = []
    asyncio.run(story())
    score, dump, temporary, keys, other = told
    assert int(score) == min(1000, int(Path("/proc/self/oom_score_adj").read_text()) + 200)
    assert (dump, keys, other) == ("0", "[]", "kept")
    assert temporary in (str(tmp_path / "tmp"), os.environ.get("TMPDIR", ""))


def test_its_temporary_files_are_closed_to_other_accounts(tmp_path: Path) -> None:
    async def story() -> None:
        short = Path(tempfile.mkdtemp(dir="/tmp"))
        try:
            process = LocalLauncher(short).spawn("r0", Command(argv=("/bin/sh", "-c", "echo $TMPDIR")), 1)
            await process.exited()
            assert process.log.read_new() == (str(short / "tmp"),)
            await process.close()
            assert (short / "tmp").stat().st_mode & 0o777 == 0o700
        finally:
            shutil.rmtree(short)

    asyncio.run(story())
