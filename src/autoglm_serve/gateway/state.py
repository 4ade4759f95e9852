"""What one gateway worker owns, and nothing global: everything that a request needs to be served."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.gateway.load import LoadTable
from autoglm_serve.gateway.server import Limits
from autoglm_serve.gateway.upstream import Pool
from autoglm_serve.gateway.validate import MediaPolicy
from autoglm_serve.observe.board import Board


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A worker's share of the options."""

    version: str
    state_dir: Path
    index: int
    workers: int
    limits: Limits
    media: MediaPolicy
    wait_ready_s: float
    """How long a request waits for a replica to become ready, while one may."""
    request_timeout_s: float
    """The longest a request may take; 0 for no limit."""
    drain_timeout_s: float

    @property
    def control_socket(self) -> Path:
        """The control plane pushes the fleet view here."""
        return self.state_dir / "control.sock"

    @property
    def admin_socket(self) -> Path:
        """The control plane's admin API answers here."""
        return self.state_dir / "admin.sock"

    @property
    def load_path(self) -> Path:
        return self.state_dir / "load"

    @property
    def board_paths(self) -> tuple[Path, ...]:
        return tuple(self.state_dir / f"board-{index}" for index in range(self.workers))


class FleetHolder:
    """The newest fleet view, and a way to wait for a newer one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.view = FleetView()
        self._loop = loop
        self._changed: asyncio.Future[None] = loop.create_future()

    def replace(self, view: FleetView) -> None:
        self.view = view
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)

    async def first_view(self) -> None:
        """Return once the control plane has said what there is."""
        while self.view.version == 0:
            await self.changed()

    async def changed(self) -> None:
        """Return at the next change."""
        await asyncio.shield(self._changed)


@dataclass(slots=True, kw_only=True)
class Worker:
    """One gateway worker's collaborators."""

    settings: Settings
    loop: asyncio.AbstractEventLoop
    fleet: FleetHolder
    load: LoadTable
    board: Board
    pool: Pool
    wake: Callable[[str], None] = field(default=lambda model: None)
    """Ask the control plane to start a model that runs on demand."""
    spin: int = 0
