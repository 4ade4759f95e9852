"""What is wanted of a replica now."""

from dataclasses import dataclass
from enum import Enum, auto

from autoglm_serve.runtime.observable import Observable


class Intent(Enum):
    """What is to become of the replica."""

    RUN = auto()
    DRAIN = auto()  # as it is, without new requests; not started again
    RENEW = auto()  # stopped, and started again at once
    SLEEP = auto()  # stopped, until it is woken
    END = auto()  # stopped for good

    @property
    def alive(self) -> bool:
        """The process, if there is one, may go on."""
        return self in (Intent.RUN, Intent.DRAIN)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # the same wish again is news
class Wanted:
    """An intent, and how long what is in flight has where a process has to stop for it."""

    intent: Intent
    grace_s: float = 0.0


class IntentCell(Observable[Wanted]):
    """The present intent; who follows it waits for another."""

    def __init__(self, now: Intent) -> None:
        super().__init__(Wanted(intent=now))

    @property
    def now(self) -> Intent:
        return self.value.intent

    def make(self, now: Intent, grace_s: float = 0.0) -> None:
        self.replace(Wanted(intent=now, grace_s=grace_s))
