"""The composition root: `serve` is the boot, top to bottom. What then runs is a `service.Service`."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from autoglm_serve.config.options import Options
from autoglm_serve.control.fleet.adoption import claimed
from autoglm_serve.control.workers.adoption import inherit, is_worker
from autoglm_serve.core.errors import ConfigError, ExitCode, StateDirBusy
from autoglm_serve.core.plan import Deployment
from autoglm_serve.deploy.decide import decide
from autoglm_serve.deploy.own_memory import own_of
from autoglm_serve.deploy.remember import recall, remember
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.gateway.routing.load import MAX_WORKERS
from autoglm_serve.gateway.wire import tls
from autoglm_serve.launch.listeners import beside, listen
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.launch.records import Records
from autoglm_serve.launch.state_dir import ADMIN_SOCKET, DECIDED, StateDir
from autoglm_serve.launch.takeover import LEAVING_S, ask_to_leave
from autoglm_serve.service.guard import prepare
from autoglm_serve.service.reporter import Reporter
from autoglm_serve.service.run import BootState, Service
from autoglm_serve.service.signals import Signals, Stopped
from autoglm_serve.service.worker_command import tls_files


async def serve(
    options: Options, reporter: Reporter, read_options: Callable[[], Options], *, takeover: bool = False
) -> ExitCode:
    """Run the service until it is told to stop. Raises ServeError for what a person can mend.

    `read_options` reads the options anew, when SIGHUP says that they have changed. With `takeover` a control
    plane that runs in the same state directory is asked to leave, and this one goes on with all that it runs.
    A mistake in the options ends nothing that runs.
    """
    if (files := tls_files(options)) is not None:
        tls.context(files)  # a certificate that is no use is said before anything is started
    signals = Signals()
    signals.listen()
    with ExitStack() as held:
        listeners = _any_port(options, held)
        path = _state_dir(options, listeners)
        lock = None if takeover else held.enter_context(StateDir(path))
        with _usable(path):
            guarded = prepare(options, path, os.environ)
        try:  # first decided, then changed: a mistake ends nothing that runs
            deployment = await signals.unless_stopped(_decision(options, reporter, path, takeover=takeover))
        except Stopped:
            return await _end_leftovers(path, options) if lock else ExitCode.STOPPED_AT_ONCE
        os.umask(0o077)  # sockets and whatever else is made from here on are this account's alone
        lock = lock or held.enter_context(_taken_over(path))
        launcher = LocalLauncher(path)
        left = await inherit(await launcher.left(), launcher, path, options.host, options.port)
        listeners = _listeners(options, held, listeners, left.listeners)
        reporter.planned(deployment)
        desired, found = await claimed(deployment, ENGINES, left.replicas, launcher)
        state = BootState(
            lock=lock,
            launcher=launcher,
            listeners=listeners,
            workers=left.workers,
            desired=desired,
            found=found,
            taken_over=takeover,
            guarded=guarded,
        )
        with _usable(path):
            service = Service(options, deployment, state, reporter, read_options, signals)
        return await service.run()


def _taken_over(path: Path) -> StateDir:
    """The state directory, from the control plane that has it."""
    refusal = ask_to_leave(path / ADMIN_SOCKET)
    if refusal:
        raise StateDirBusy("The service that runs does not leave.", why=refusal, next_step="Try again.")
    return StateDir(path, wait_s=LEAVING_S)


async def _decision(options: Options, reporter: Reporter, path: Path, *, takeover: bool) -> Deployment:
    """What to run: what was decided before, while replicas of that run; else what is decided now.

    Who takes over goes on with what runs even if other options are wanted, and goes over to those then.
    """
    decided = path / DECIDED
    running = own_of(record.pid for record in Records(path).read_all() if record.identity.alive)
    if running.pids:
        known = recall(decided, None if takeover else options)
        if known is not None:
            return known
    deployment = await decide(options, reporter.downloading, running)
    with _usable(path):
        remember(decided, options, deployment)
    return deployment


async def _end_leftovers(path: Path, options: Options) -> ExitCode:
    """A service that is stopped before it has begun stops what an earlier one has left: workers first."""
    launcher = LocalLauncher(path)
    left = await launcher.left()
    workers = [record for record in left if is_worker(record.id)]
    await launcher.end(workers, grace_s=options.drain_timeout_s)
    await launcher.end(record for record in left if record not in workers)
    return ExitCode.STOPPED_AT_ONCE


@contextmanager
def _usable(state_dir: Path) -> Iterator[None]:
    """What cannot be written there is the person's to mend: a full disk, a folder that is another's."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The state directory {state_dir} cannot be used.",
            why=error.strerror or str(error),
            next_step="Make room there, or choose another folder that you may write to with --state-dir.",
        ) from error


def _any_port(options: Options, held: ExitStack) -> tuple[socket.socket, ...]:
    """Sockets at a port that the kernel chooses, where nothing else can name the state directory."""
    if options.port or options.state_dir is not None:
        return ()
    return _kept(listen(options.host, 0, _worker_count(options)), held)


def _listeners(
    options: Options,
    held: ExitStack,
    made: tuple[socket.socket, ...],
    inherited: tuple[socket.socket, ...],
) -> tuple[socket.socket, ...]:
    """One socket a worker: those that were made already, those that an earlier service's workers listen on,
    or new ones. Never fewer than inherited: connections may be waiting on any of them."""
    if made:
        return made
    if inherited:
        return _kept(beside(inherited, _worker_count(options)), held)
    return _kept(listen(options.host, options.port, _worker_count(options)), held)


def _kept(listeners: tuple[socket.socket, ...], held: ExitStack) -> tuple[socket.socket, ...]:
    for listener in listeners:
        held.enter_context(listener)
    return listeners


def _worker_count(options: Options) -> int:
    return min(options.gateway_workers or max(1, len(os.sched_getaffinity(0)) // 4), MAX_WORKERS // 2)


def _state_dir(options: Options, listeners: tuple[socket.socket, ...]) -> Path:
    port = listeners[0].getsockname()[1] if listeners else options.port
    return options.state_dir_for(port, os.environ).absolute()
