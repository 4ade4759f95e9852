"""What a keeper is given: the effects it may use, and the rules for how often and how long."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from autoglm_serve.launch.base import Launcher
from autoglm_serve.watch.backoff import BackOff
from autoglm_serve.watch.clock import Clock
from autoglm_serve.watch.health import Health


class Ask(Protocol):
    """`health.ask`, or a fake of it."""

    def __call__(self, base_url: str, path: str, /, *, timeout_s: float) -> Awaitable[Health]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often to look, and how long to wait for an answer."""

    first_look_s: float = 0.02
    slowest_look_s: float = 0.5
    """While a replica starts the looks grow rarer, up to this."""
    ready_look_s: float = 1.0
    health_every_s: float = 5.0
    health_timeout_s: float = 5.0
    silences: int = 4
    """Unanswered looks in a row after which a ready replica counts as stuck."""
    stuck_grace_s: float = 5.0
    notice_s: float = 2.0
    """How long the news of an exit may take once the process was ended."""
    tries: int = 5
    """Starts in a row, of a replica that never was ready, after which there is no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    launcher: Launcher
    clock: Clock
    rng: random.Random
    ask: Ask
    on_change: Callable[[], None]
    patience: Patience = field(default_factory=Patience)
    back_off: BackOff = field(default_factory=BackOff)
