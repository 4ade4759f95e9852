"""What a real replica died of decides whether the request that waited there is taken for poison."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.process.service_process import Reply, ServiceProcess, running_service
from tests.process.test_service import all_ready

pytestmark = pytest.mark.process


@contextmanager
def one_request_before_stopped_replicas() -> Iterator[tuple[ServiceProcess, "Future[Reply]", dict[str, int]]]:
    """Three replicas that answer nothing, one of which has the request; and the pids of all."""
    with running_service("--replicas", "3", "--no-speech") as service, ThreadPoolExecutor() as threads:
        pids = {each["id"]: each["pid"] for each in service.wait_for_replicas(all_ready)}
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        try:
            yield service, threads.submit(service.chat, stream=True), pids
        finally:
            for each in service.replicas():
                if each["pid"] is not None:
                    os.kill(each["pid"], signal.SIGCONT)


def end_whoever_has_it(service: ServiceProcess, pids: dict[str, int], number: signal.Signals) -> None:
    """Returns when it is known to be gone."""

    def has_it(replicas: list[dict[str, object]]) -> list[str]:
        return [
            str(each["id"])
            for each in replicas
            if each["in_flight"] and each["pid"] == pids.get(str(each["id"]))
        ]

    replicas = service.wait_for_replicas(lambda each: bool(has_it(each)))
    (name,) = has_it(replicas)
    pid = pids.pop(name)
    os.kill(pid, number)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)  # what is stopped dies of nothing but SIGKILL
    service.wait_for_replicas(lambda each: all(one["pid"] != pid for one in each))


def test_two_replicas_killed_by_somebody_stop_nobody() -> None:
    with one_request_before_stopped_replicas() as (service, answer, pids):
        for _ in range(2):
            end_whoever_has_it(service, pids, signal.SIGKILL)
        (last,) = pids.values()
        os.kill(last, signal.SIGCONT)
        status, _, body = answer.result()
        assert status == 200, body
        assert body.endswith(b"data: [DONE]\n\n")


def test_two_replicas_that_died_by_themselves_are_enough() -> None:
    with one_request_before_stopped_replicas() as (service, answer, pids):
        for _ in range(2):
            end_whoever_has_it(service, pids, signal.SIGSEGV)
        status, _, body = answer.result()
        assert status == 503
        assert json.loads(body)["error"]["code"] == "request_kills_replicas"
        assert service.chat(stream=True)[0] == 503  # the same again
        (last,) = pids.values()
        os.kill(last, signal.SIGCONT)
        assert service.chat("something else")[0] == 200
