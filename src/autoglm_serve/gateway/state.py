"""What one gateway worker owns, and nothing global: everything that a request needs to be served."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.gateway.access.grants import Grants
from autoglm_serve.gateway.access.keyring import Keyring
from autoglm_serve.gateway.access.permission import visible_to
from autoglm_serve.gateway.access.upstream_key import UpstreamKey
from autoglm_serve.gateway.exchange.life_signs import LifeSigns
from autoglm_serve.gateway.exchange.request_log import RequestLog
from autoglm_serve.gateway.exchange.stream_watch import StreamWatch
from autoglm_serve.gateway.exchange.time_limit import TimeLimit
from autoglm_serve.gateway.media.pictures import PictureProcess
from autoglm_serve.gateway.recovery.habits import Habits
from autoglm_serve.gateway.recovery.quarantine import Quarantine
from autoglm_serve.gateway.recovery.suspects import Suspects
from autoglm_serve.gateway.routing.fleet_link import WorkerEnd
from autoglm_serve.gateway.routing.load import LoadTable
from autoglm_serve.gateway.routing.router import Router
from autoglm_serve.gateway.settings import Settings
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.upstream import Pool
from autoglm_serve.keys.key import Scope
from autoglm_serve.observe.counter_file import CounterFile
from autoglm_serve.runtime.observable import Observable

_MOST_FETCHING = 16


@dataclass(slots=True, kw_only=True)
class Worker:
    """One gateway worker's collaborators."""

    settings: Settings
    loop: asyncio.AbstractEventLoop
    fleet: Observable[FleetView]
    control: WorkerEnd
    load: LoadTable
    counters: CounterFile
    pool: Pool
    router: Router
    streams: StreamWatch
    quarantine: Quarantine
    suspects: Suspects
    habits: Habits
    life_signs: LifeSigns
    time_limit: TimeLimit
    grants: Grants
    requests: RequestLog
    """Tells of those that are over."""
    keyring: Keyring = field(default_factory=Keyring)
    upstream_key: UpstreamKey = field(default_factory=UpstreamKey)
    pictures: PictureProcess = field(default_factory=PictureProcess)
    """Where pictures are decoded that an engine would not read."""
    fetching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_FETCHING))
    """Who may fetch media."""
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "reader"))
    """Where requests are read that would hold up the loop."""
    menders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "mender"))
    """Where it is worked out how a stream goes on that has lost its replica: not behind what is read."""

    def seen_by(self, request: Request) -> FleetView:
        """The fleet as who sends this may know it. Raises Refusal where a key is needed that did not come."""
        return visible_to(self.keyring.of(request, Scope.INFERENCE), self.fleet.value)
