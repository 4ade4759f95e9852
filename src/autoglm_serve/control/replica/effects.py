"""What a controller is given: the effects it may use, and the rules for how often and how long."""

import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from autoglm_serve.control.replica import health
from autoglm_serve.control.replica.backoff import BackOff
from autoglm_serve.control.replica.health import Health
from autoglm_serve.launch.base import Launcher
from autoglm_serve.runtime.clock import Clock, RealClock


class AskHealth(Protocol):
    """`health.ask`, or a fake of it."""

    def __call__(self, base_url: str, path: str, /, *, timeout_s: float) -> Awaitable[Health]: ...


class Generate(Protocol):
    """`health.generate`, or a fake of it."""

    def __call__(self, base_url: str, model: str, /, *, timeout_s: float) -> Awaitable[Health]: ...


class Counters(Protocol):
    """`health.counters`, or a fake of it."""

    def __call__(
        self, base_url: str, work: re.Pattern[bytes], /, *, timeout_s: float
    ) -> Awaitable[int | None]: ...


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
    first_token_s: float = 120.0
    """For the first token of a replica whose health path answers already."""
    work_look_s: float = 5.0
    standstill_s: float = 60.0
    """Without progress on what it carries for so long, a replica is asked for one token."""
    token_s: float = 120.0
    """For that token; longer for a replica that has needed longer before and went on."""
    stuck_grace_s: float = 5.0
    notice_s: float = 2.0
    """How long the news of an exit may take once the process was ended."""
    tries: int = 5
    """Starts in a row, of a replica that never was ready, after which there is no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The world as a controller may touch it; by default the real one."""

    launcher: Launcher[Any]
    clock: Clock = field(default_factory=RealClock)
    rng: random.Random = field(default_factory=random.Random)
    ask: AskHealth = health.ask
    generate: Generate = health.generate
    counters: Counters = health.counters
    use: Callable[[int], tuple[int, int]] = lambda slot: (0, 0)
    """The requests in flight on a slot, and those it was given so far."""
    movement: Callable[[int], int] = lambda slot: 0
    """A number that changes while what runs on a slot brings its clients something."""
    patience: Patience = field(default_factory=Patience)
    back_off: BackOff = field(default_factory=BackOff)
