"""`autoglm logs`: what the processes of a running service have written, one or all, once or as it comes."""

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode, Unreachable
from autoglm_serve.launch.state_dir import LOGS

_LOOK_S = 0.2
_MOST_READ_BYTES = 4 << 20
"""From the end of a log, for its last lines."""


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only={"port", "state_dir"}, words={"port": "The TCP port that the service listens on."})
    parser.add_argument(
        "--replica", action="append", metavar="ID", help="Only this one (r0, or 0); may be given again. [all]"
    )
    parser.add_argument("--follow", "-f", action="store_true", help="Go on with what comes, until Ctrl-C.")
    parser.add_argument(
        "--lines", "-n", type=int, default=20, metavar="N", help="Begin with the last N lines of each. [20]"
    )


def run(args: Namespace, options: Options) -> int:
    folder = options.state_dir_for(options.port, os.environ) / LOGS
    tails = [_Tail(path) for path in _chosen(folder, args.replica or ())]
    for tail in tails:
        for line in tail.last(args.lines):
            _show(tail.path, line, alone=len(tails) == 1)
    if args.follow:
        _follow(tails)
    return ExitCode.OK


def _chosen(folder: Path, names: Sequence[str]) -> list[Path]:
    there = {path.stem: path for path in sorted(folder.glob("*.log"))}
    wanted = [f"r{name}" if name.isdigit() else name for name in names] or list(there)
    missing = [name for name in wanted if name not in there]
    if not there or missing:
        raise Unreachable(
            f"There is no log of {', '.join(missing) or 'a service'} in {folder}.",
            why=f"There are: {', '.join(there)}." if there else "No service has run with this port yet.",
            next_step="`autoglm status` names the replicas; --port and --state-dir name the service.",
        )
    return [there[name] for name in wanted]


def _show(path: Path, line: str, *, alone: bool) -> None:
    """Control characters of a log must not drive a person's terminal."""
    shown = "".join(character if character.isprintable() or character == "\t" else "?" for character in line)
    print(shown if alone else f"{path.stem:<4} {shown}", flush=True)


def _follow(tails: "Sequence[_Tail]") -> None:
    while True:
        fresh = [(tail.path, line) for tail in tails for line in tail.fresh()]
        for path, line in fresh:
            _show(path, line, alone=len(tails) == 1)
        if not fresh:
            time.sleep(_LOOK_S)


class _Tail:
    """One log, read from near its end on; one that is begun anew is read from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.open("rb")
        self._log.seek(max(0, path.stat().st_size - _MOST_READ_BYTES))

    def last(self, count: int) -> list[str]:
        """The last lines that there are; what comes later is `fresh`."""
        return self._whole_lines()[-count:] if count > 0 else self._whole_lines()[:0]

    def fresh(self) -> list[str]:
        """What was written since the last look, whole lines."""
        lines = self._whole_lines()
        if self._begun_anew():
            self._log.close()
            self._log = self.path.open("rb")
        return lines

    def _whole_lines(self) -> list[str]:
        at = self._log.tell()
        data = self._log.read(_MOST_READ_BYTES)
        cut = data.rfind(b"\n") + 1
        self._log.seek(at + cut)
        return data[:cut].decode("utf-8", "replace").splitlines()

    def _begun_anew(self) -> bool:
        try:
            now = self.path.stat()
        except FileNotFoundError:  # between an old log's leaving and a new one's coming
            return False
        return now.st_ino != os.fstat(self._log.fileno()).st_ino or now.st_size < self._log.tell()
