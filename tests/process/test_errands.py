"""Whole tasks through the whole service: an agent loop, and a replica that dies on the way."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from autoglm_serve.demo import agent, demo_model
from autoglm_serve.demo.evaluate import Address, held_out_errands, held_out_system, png
from autoglm_serve.demo.world import view
from tests.process.service_process import ServiceProcess, running_service

pytestmark = pytest.mark.process

SEED, COUNT, SYSTEM_TOKENS = 111, 5, 1500


class DeadlyStep:
    """Asks the service; once, while it works on the answer, the replica that works on it is killed."""

    def __init__(self, service: ServiceProcess, ask: agent.Ask) -> None:
        self._service = service
        self._ask = ask
        self._asked = 0
        self.kills = 0

    def __call__(self, messages: list[agent.Message]) -> str:
        self._asked += 1
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self._ask, messages)
            while not self.kills and self._asked > 1 and not answer.done():
                self._kill_who_is_busy()
            return answer.result()

    def _kill_who_is_busy(self) -> None:
        for replica in self._service.replicas():
            if replica["in_flight"] and not self.kills:
                with suppress(ProcessLookupError):
                    os.kill(replica["pid"], signal.SIGKILL)
                    self.kills += 1


def both_see(replicas: list[dict[str, Any]]) -> bool:
    mine = [each["state"] for each in replicas if each["model"] == demo_model().name]
    return mine == ["ready", "ready"]


def asker(service: ServiceProcess) -> Callable[[list[agent.Message]], str]:
    address = Address(url=service.url)
    return lambda messages: address.converse(demo_model().name, messages, sampling=agent.SAMPLING)


def test_errands_are_done_though_a_replica_is_killed_in_every_one() -> None:
    endings, kills = [], 0
    with running_service("--replicas", "2") as service:
        for number, errand in enumerate(held_out_errands(SEED, COUNT)):
            service.wait_for_replicas(both_see)
            step = DeadlyStep(service, asker(service))
            system = held_out_system(SEED, "errands", number, SYSTEM_TOKENS)
            run = agent.run(errand, step, lambda phone: png(view(phone)), system=system)
            endings.append(run.ending)
            kills += step.kills
    assert kills == COUNT
    # Another processor rounds differently: one errand may be lost to that.
    assert endings.count("done") >= COUNT - 1, endings
