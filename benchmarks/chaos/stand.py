"""What is tested: the whole service, real replicas, and what an outsider can see of both."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from tests.process.service_process import ServiceProcess, running_service

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A running service with embedded replicas of the bundled demo model."""

    service: ServiceProcess

    @property
    def port(self) -> int:
        return self.service.port

    async def replicas(self) -> list[Fields]:
        return await asyncio.to_thread(self.service.replicas)

    async def ready(self, at_least: int | None = None) -> list[Fields]:
        """The replicas, once so many of them (all, if not said) can serve."""
        deadline_s = time.monotonic() + 120
        while True:
            replicas = await self.replicas()
            ready = [replica for replica in replicas if replica["state"] == "ready"]
            if len(ready) >= (len(replicas) if at_least is None else at_least):
                return ready
            assert time.monotonic() < deadline_s, f"the replicas never got there: {replicas}"
            await asyncio.sleep(0.02)

    def workers(self) -> list[psutil.Process]:
        """The gateway's processes."""
        found = []
        for name, pid in self.service.records().items():
            if name.startswith("gateway"):
                with suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(pid))
        return found

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its whole name."""
        _, _, text = await asyncio.to_thread(self.service.ask, "GET", "/metrics")
        lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@contextmanager
def stand(*flags: str) -> Iterator[Stand]:
    with running_service("--no-speech", *flags) as service:
        yield Stand(service=service)


def total(metrics: dict[str, float], name: str, **labels: str) -> float:
    """The sum over all samples of one metric that carry these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for sample, value in metrics.items()
        if sample.partition("{")[0] == name and all(label in sample for label in wanted)
    )


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
