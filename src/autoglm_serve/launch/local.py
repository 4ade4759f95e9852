"""Starts engine processes on this machine.

Each runs in a session of its own with its output in a file, so it outlives the control plane if that is
killed; it does not run before its record is on disk, so it can be found again. Where the disk takes no record
or no log it runs without, which is said, and the record is written as soon as it can be. Knows commands, not
engines.
"""

import asyncio
import errno
import fcntl
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from autoglm_serve.core.links import without_links
from autoglm_serve.core.plan import Placement
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.launch import sockets, tcp_sockets, unix_socket
from autoglm_serve.launch.base import NO_NOTE, Exit
from autoglm_serve.launch.log_tail import LogTail
from autoglm_serve.launch.oom import oom_kills
from autoglm_serve.launch.orphans import end_orphans, find_orphans
from autoglm_serve.launch.ports import LOOPBACK, PortLease
from autoglm_serve.launch.process import MARK, ProcessIdentity, end_session, gone, kill_session
from autoglm_serve.launch.records import Records, ReplicaRecord
from autoglm_serve.launch.state_dir import LOGS
from autoglm_serve.runtime.private_file import private

log = logging.getLogger(__name__)

KEPT_LOGS = 3
_LOOK_S = 2.0
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
SHELL = "/bin/sh"
GATE = 3
"""Where the child waits for one line before it becomes the engine; end of file means that we died first."""
WAIT_AT_GATE = f'read -r _ <&{GATE} && exec "$@" {GATE}<&-'
LAST_FOR_MEMORY = "{{ echo {score} >/proc/self/oom_score_adj; }} 2>&-; ulimit -c 0; "
"""An engine is killed before the gateway where memory runs out, and leaves no dump with prompts in it."""
_WORSE, _WORST = 200, 1000
_OURS = "AUTOGLM_"
"""What the variables begin with that may hold keys: none of an engine's business."""
_LONGEST_TEMPORARY = "x" * 48
LISTENER = 4
"""Where a process that inherits a listening socket finds it."""
DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class LocalProcess:
    """A started engine. Its owner awaits `exited` and calls `close` after it."""

    def __init__(self, record: ReplicaRecord, pidfd: int, records: Records) -> None:
        self.record = record
        self.log = LogTail(record.log_path)
        self._pidfd = pidfd
        self._records = records
        self._lease: PortLease | None = None
        self._oom_kills_before = oom_kills()

    @property
    def pid(self) -> int:
        return self.record.identity.pid

    @property
    def listen(self) -> Listen:
        return self.record.listen

    @property
    def listens(self) -> bool:
        """Its socket lies where nobody else can make one; a port may have become somebody else's."""
        listen = self.listen
        if listen.port is None:
            return True
        return tcp_sockets.held_by(listen.port, (each.pid for each in self.record.identity.family()))

    @property
    def log_path(self) -> Path:
        return self.record.log_path

    def hold(self, lease: PortLease) -> None:
        """Nobody else gets its port before it is closed."""
        self._lease = lease

    async def exited(self) -> Exit:
        """Returns when the process has ended, with how. A record that is missing is written meanwhile."""
        while not await self._gone_within(_LOOK_S):
            if not self._records.has(self.record.id):
                with suppress(OSError):
                    self.note()
        return replace(_collected(self._pidfd), oom_kills=oom_kills() - self._oom_kills_before)

    async def end(self, grace_s: float) -> None:
        """Asks it to stop, waits, and leaves nothing of its family alive."""
        await end_session(self.record.identity, grace_s)

    def send(self, number: signal.Signals) -> None:
        """Signals this process alone; one that has ended hears nothing."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    async def _gone_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await gone(self._pidfd)
        except TimeoutError:
            return False
        return True

    def note(self) -> None:
        """Write its record, if the disk has room for it. Raises OSError where that is not what it lacks."""
        try:
            self._records.write(self.record)
        except OSError as problem:
            if problem.errno not in _NO_ROOM:
                raise
            log.error(
                "%s (pid %d) runs without a record: %s. A service that is started after this one was killed "
                "will not find it; the record is written as soon as there is room",
                *(self.record.id, self.pid, problem.strerror),
            )

    def rename(self, name: str) -> None:
        """Recorded under another id from now on: its own is free for a successor."""
        before, self.record = self.record, replace(self.record, id=name)
        self.note()
        if before.id != name:
            self._records.remove(before.id)

    def kill(self) -> None:
        """Ends it and its family at once, without waiting: for when nothing may be awaited any more."""
        kill_session(self.record.identity)

    async def close(self) -> None:
        """After its exit: ends what it left behind and forgets it."""
        await end_session(self.record.identity, 0.0)
        self._records.remove(self.record.id)
        sockets.remove(self.listen)
        if self._lease is not None:
            self._lease.close()
        os.close(self._pidfd)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Both ends, closed with the block."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _copy_above(least: int, descriptor: int, until: ExitStack) -> int:
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
    until.callback(os.close, copy)
    return copy


def _collected(pidfd: int) -> Exit:
    """How an ended process ended; it is no zombie after this."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return Exit()
    if info is None:
        return Exit()
    by_itself = info.si_code == os.CLD_EXITED
    return Exit(code=info.si_status) if by_itself else Exit(signal=info.si_status)


def _score() -> int:
    """How gladly the kernel kills an engine for its memory: more gladly than us."""
    with suppress(OSError, ValueError):
        return min(_WORST, int(Path("/proc/self/oom_score_adj").read_text()) + _WORSE)
    return _WORSE


def _undone(pid: int) -> None:
    """It never was, and is no zombie either."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class LocalLauncher:
    """The `Launcher` of this machine. Its records and logs lie in one state directory."""

    def __init__(self, state_dir: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self._state_dir = state_dir
        self._logs = state_dir / LOGS
        self._records = Records(state_dir)
        self._environment = without_links(
            os.environ if environment is None else environment,
            tuple(prefix for engine in ENGINES.values() for prefix in engine.variables),
        )

    async def left(self) -> tuple[ReplicaRecord, ...]:
        """What an earlier service left running; the caller holds the state directory's lock."""
        return find_orphans(self._state_dir)

    async def end(self, left: Iterable[ReplicaRecord], *, grace_s: float = 2.0) -> None:
        """Ends some of what was left."""
        await end_orphans(self._state_dir, left, grace_s=grace_s)

    async def adopt(self, left: ReplicaRecord) -> LocalProcess | None:
        """A process that an earlier service started, as if it were ours; None if it has ended.

        It is not our child, so how it ends will not be known.
        """
        try:
            pidfd = os.pidfd_open(left.pid)
        except ProcessLookupError:
            return None
        if not left.identity.alive:
            os.close(pidfd)
            return None
        return LocalProcess(left, pidfd, self._records)

    async def start(
        self,
        replica_id: str,
        command: Callable[[Listen], Command],
        placement: Placement,
        *,
        note: Mapping[str, str] = NO_NOTE,
        takes_unix: bool = False,
    ) -> LocalProcess:
        """Starts a replica on a socket of its own, or on a loopback port that stays its own.

        Raises OSError where it cannot be made.
        """
        with ExitStack() as unless_started:
            if takes_unix:
                listen, lease = sockets.fresh(self._state_dir, replica_id), None
                unless_started.callback(sockets.remove, listen)
            else:
                lease = PortLease()
                unless_started.callback(lease.close)
                listen = Listen(host=LOOPBACK, port=lease.port)
            process = self.spawn(
                replica_id, command(listen), listen.port or 0, socket_path=listen.path, note=note
            )
            unless_started.pop_all()
        if lease is not None:
            process.hold(lease)
        return process

    def spawn(
        self,
        replica_id: str,
        command: Command,
        port: int,
        *,
        listener: int | None = None,
        socket_path: Path | None = None,
        note: Mapping[str, str] = NO_NOTE,
    ) -> LocalProcess:
        """Starts a process; one with a `listener` inherits that socket as descriptor 4.

        Raises OSError where it cannot be made.
        """
        if shutil.which(command.argv[0], path=self._environment.get("PATH")) is None:
            raise FileNotFoundError(f"{command.argv[0]} is not installed, or not on the PATH")
        log_path = self._fresh_log(replica_id)
        inherited = {} if listener is None else {listener: LISTENER}
        mark = uuid4().hex
        with _pipe() as (gate, key):
            pid = self._spawn(command, mark, log_path, inherited | {gate: GATE})
            with ExitStack() as unless_recorded:  # a full disk, no descriptors left: it must not run
                unless_recorded.callback(_undone, pid)
                identity = ProcessIdentity.of(pid, mark)
                assert identity is not None, "a child that was not waited for has an entry in /proc"
                record = ReplicaRecord(
                    id=replica_id,
                    identity=identity,
                    argv=command.argv,
                    port=port,
                    log_path=log_path,
                    socket_path=socket_path,
                    fingerprint=command.fingerprint,
                    note=dict(note),
                )
                process = LocalProcess(record, os.pidfd_open(pid), self._records)
                process.note()
                unless_recorded.pop_all()
            with suppress(BrokenPipeError):  # it was killed already: `exited` tells
                os.write(key, b"\n")
            return process

    def _spawn(self, command: Command, mark: str, log_path: Path, inherited: Mapping[int, int]) -> int:
        """`inherited` maps our descriptors to the child's. One that inherits no listener is an engine."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        is_engine = LISTENER not in inherited.values()
        begin = (LAST_FOR_MEMORY.format(score=_score()) if is_engine else "") + WAIT_AT_GATE
        environment = self._for_engines() if is_engine else self._environment
        with ExitStack() as copies:
            # From above the child's numbers, so that none is overwritten before it is copied. No higher: the
            # limit may be low.
            least = max((2, *inherited.values())) + 1
            high = {_copy_above(least, ours, copies): theirs for ours, theirs in inherited.items()}
            return os.posix_spawn(
                SHELL,
                (SHELL, "-c", begin, SHELL, *command.argv),
                environment | dict(command.env) | {MARK: mark},
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(log_path), append, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *((os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in high.items()),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULT_SIGNALS,
            )

    def _for_engines(self) -> dict[str, str]:
        """Without our keys, and with a folder of their own for what they would leave open to all in /tmp."""
        theirs = {name: value for name, value in self._environment.items() if not name.startswith(_OURS)}
        folder = self._state_dir / "tmp"
        if unix_socket.fits(folder / _LONGEST_TEMPORARY):  # vLLM's processes talk through sockets in there
            with suppress(OSError):
                folder.mkdir(mode=0o700, exist_ok=True)
                theirs["TMPDIR"] = str(folder)
        return theirs

    def _fresh_log(self, replica_id: str) -> Path:
        """The path of a new log; the logs of the last starts are kept beside it as .1, .2, .3.

        Where there is no room for one it is the null device.
        """
        path = self._logs / f"{replica_id}.log"
        try:
            self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
            for age in range(KEPT_LOGS, 0, -1):
                older = path if age == 1 else path.with_name(f"{path.name}.{age - 1}")
                if older.exists():
                    older.replace(path.with_name(f"{path.name}.{age}"))
            os.close(private(str(path), os.O_CREAT | os.O_WRONLY))
        except OSError as problem:
            log.error("%s runs without a log: %s", replica_id, problem.strerror or problem)
            return Path(os.devnull)
        return path
