"""Errors that a person can meet, and the exit code that tells each kind apart.

`ServeError` is the one root. Its message says what happened, why, and what to do next; `cli` prints it
on a few plain lines and leaves with `exit_code`. Errors of the HTTP API are `core.refusal.Refusal`.

    ServeError
    ├── ConfigError      an option, a variable or the config file is wrong
    ├── PortTaken        somebody else listens where we should
    ├── ModelError       the model is missing, unreadable or not what an engine can run
    ├── StateDirBusy     another service uses the same state directory
    ├── NoPlan           the model does not fit the hardware
    ├── EngineFailed     no replica can start
    └── Unreachable      a running service was asked and did not answer
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of `autoglm` means."""

    OK = 0
    FAILED = 1  # something unforeseen; the log has it
    USAGE = 2  # the command line is wrong (argparse's own code)
    CONFIG = 3
    PORT_TAKEN = 4
    MODEL = 5
    STATE_DIR_BUSY = 6
    NO_PLAN = 7
    ENGINE_FAILED = 8
    UNREACHABLE = 9
    STOPPED_AT_ONCE = 130  # a second Ctrl-C: requests in flight were cut


class ServeError(Exception):
    """What happened, why, and what to do next."""

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return "\n".join(parts)


class ConfigError(ServeError):
    exit_code = ExitCode.CONFIG


class PortTaken(ServeError):
    exit_code = ExitCode.PORT_TAKEN


class ModelError(ServeError):
    exit_code = ExitCode.MODEL


class StateDirBusy(ServeError):
    exit_code = ExitCode.STATE_DIR_BUSY


class NoPlan(ServeError):
    exit_code = ExitCode.NO_PLAN


class EngineFailed(ServeError):
    exit_code = ExitCode.ENGINE_FAILED


class Unreachable(ServeError):
    exit_code = ExitCode.UNREACHABLE
