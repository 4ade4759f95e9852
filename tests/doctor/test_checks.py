"""Every check finds what is wrong with its own thing, and nothing on a machine that is well."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.hardware import Hardware
from autoglm_serve.core.replica import Diagnosis, ExitCause, Progress, ReplicaState
from autoglm_serve.core.status import ReplicaReport, ServiceStatus
from autoglm_serve.doctor.checks import ALL
from autoglm_serve.doctor.facts import Facts, Folder, HostFacts, HubFacts, ServiceFacts, StreamTiming
from autoglm_serve.doctor.symptom import Severity, Symptom
from autoglm_serve.probe import hardware_table
from autoglm_serve.probe.gpus import Driver, Snapshot

GIB = 2**30
WELL = HostFacts(
    gpus=Snapshot(driver=Driver.OK, driver_version="580.1", cuda_version="13.0"),
    hardware=hardware_table.hardware("h100:2"),
    packages={"vllm": "0.28.0", "torch": "2.9.0+cu130", "transformers": "5.1.0"},
    cores=16,
    memory_bytes=64 * GIB,
    memory_free_bytes=50 * GIB,
    shm_bytes=8 * GIB,
    descriptors=65536,
    cache=Folder(path=Path("/cache"), free_bytes=100 * 10**9, writable=True),
    state=Folder(path=Path("/state"), free_bytes=10 * GIB, writable=True),
    hub=HubFacts(title="Hugging Face"),
    port=8000,
)
READY = ReplicaReport(id="r0", model="m", engine="vllm", state=ReplicaState.READY, gpus=(0, 1))
SERVING = ServiceFacts(
    url="http://127.0.0.1:8000",
    status=ServiceStatus(url="http://127.0.0.1:8000", version="1", replicas=(READY,)),
    models=("m",),
    stream=StreamTiming(pieces_s=tuple(0.1 + 0.02 * index for index in range(40))),
    clock_ahead_s=0.4,
)
OOM = Diagnosis(cause=ExitCause.OUT_OF_MEMORY, summary="CUDA has no memory.", remedy="--max-model-len 8192")


def host(**changes: object) -> Facts:
    return Facts(host=replace(WELL, **changes), service=None)  # type: ignore[arg-type]


def service(**changes: object) -> Facts:
    return Facts(host=WELL, service=replace(SERVING, **changes))  # type: ignore[arg-type]


def with_replica(**changes: object) -> Facts:
    replica = replace(READY, **changes)  # type: ignore[arg-type]
    return service(status=ServiceStatus(url="u", version="1", replicas=(replica,)))


def busy_gpu() -> Facts:
    first, second = WELL.hardware.gpus
    held = replace(first, free_bytes=first.total_bytes - 20 * GIB)
    return host(hardware=replace(WELL.hardware, gpus=(held, second)))


def symptoms(facts: Facts) -> list[Symptom]:
    return [symptom for check in ALL for symptom in check(facts)]


@pytest.mark.parametrize("facts", [host(), service(), Facts(host=None, service=SERVING)])
def test_nothing_is_found_where_nothing_is_wrong(facts: Facts) -> None:
    assert symptoms(facts) == []


WRONG: dict[str, tuple[Callable[[], Facts], Severity, str]] = {
    "driver broken": (
        lambda: host(gpus=Snapshot(driver=Driver.BROKEN, detail="version mismatch")),
        Severity.ERROR, "does not answer",
    ),
    "no device": (lambda: host(gpus=Snapshot(driver=Driver.NO_DEVICE)), Severity.ERROR, "shows no GPU"),
    "another maker's": (
        lambda: host(gpus=Snapshot(driver=Driver.NO_GPU), hardware=Hardware(gpus=()), accelerator="AMD"),
        Severity.NOTE, "AMD",
    ),
    "torch for a newer CUDA": (
        lambda: host(gpus=Snapshot(driver=Driver.OK, driver_version="550", cuda_version="12.4")),
        Severity.ERROR, "CUDA 13.0",
    ),
    "old vLLM": (lambda: host(packages={"vllm": "0.12.0"}), Severity.ERROR, "0.12.0"),
    "old transformers": (
        lambda: host(packages={"vllm": "0.28.0", "transformers": "4.57.1"}), Severity.WARNING, "wrong taps",
    ),
    "no P2P": (lambda: host(hardware=hardware_table.hardware("rtx4090:2")), Severity.NOTE, "main memory"),
    "small /dev/shm": (lambda: host(shm_bytes=64 * 2**20), Severity.WARNING, "64 MiB"),
    "no /dev/shm": (lambda: host(shm_bytes=None), Severity.ERROR, "no /dev/shm"),
    "few files": (lambda: host(descriptors=1024), Severity.WARNING, "1024"),
    "full disk": (
        lambda: host(state=Folder(path=Path("/s"), free_bytes=2**20, writable=True)),
        Severity.WARNING, "1 MiB",
    ),
    "folder of others": (
        lambda: host(state=Folder(path=Path("/s"), free_bytes=GIB, writable=False)),
        Severity.ERROR, "written",
    ),
    "no room for the model": (
        lambda: host(
            hub=HubFacts(title="H", model_cached=False),
            cache=Folder(path=Path("/c"), free_bytes=5 * 10**9, writable=True),
        ),
        Severity.WARNING, "5.0 GB",
    ),
    "hub away": (
        lambda: host(hub=HubFacts(title="H", model_cached=False, unreachable="no route")),
        Severity.ERROR, "does not answer",
    ),
    "offline": (
        lambda: host(hub=HubFacts(title="H", model_cached=False, offline=True)), Severity.ERROR, "offline",
    ),
    "model not found": (
        lambda: host(model_problem=ModelError("There is no /m.", next_step="Check the path.")),
        Severity.ERROR, "There is no /m.",
    ),
    "port taken": (lambda: host(port_holder="nginx (pid 8)"), Severity.ERROR, "Port 8000 is taken"),
    "GPU of others": (busy_gpu, Severity.WARNING, "20.0 GiB of GPU 0"),
    "little memory": (lambda: host(memory_free_bytes=GIB // 2), Severity.WARNING, "0.5 GiB"),
    "proxy": (
        lambda: host(environ={"http_proxy": "http://p", "no_proxy": "intern"}),
        Severity.WARNING, "http_proxy",
    ),
    "connection refused": (lambda: service(unreachable="refused"), Severity.ERROR, "Nothing answers"),
    "out of memory": (
        lambda: with_replica(state=ReplicaState.FAILED, last_exit=OOM), Severity.ERROR, "r0 is down",
    ),
    "dies again and again": (lambda: with_replica(restarts=4, last_exit=OOM), Severity.WARNING, "4 times"),
    "starting": (
        lambda: with_replica(state=ReplicaState.STARTING, progress=Progress(stage="loading")),
        Severity.NOTE, "starting",
    ),
    "buffered": (
        lambda: service(stream=StreamTiming(pieces_s=tuple(1.5 + 0.0001 * index for index in range(40)))),
        Severity.WARNING, "one piece",
    ),
    "slow engine": (
        lambda: service(stream=StreamTiming(pieces_s=tuple(4 + 0.5 * index for index in range(40)))),
        Severity.WARNING, "little is asked",
    ),
    "slow crowd": (
        lambda: replace(
            with_replica(in_flight=30),
            service=replace(
                SERVING,
                stream=StreamTiming(pieces_s=tuple(4 + 0.5 * index for index in range(40))),
                status=ServiceStatus(url="u", version="1", replicas=(replace(READY, in_flight=30),)),
            ),
        ),
        Severity.WARNING, "more is asked",
    ),
    "clock": (lambda: service(clock_ahead_s=-90.0), Severity.WARNING, "90 s slow"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_evidence_and_remedy(wrong: str) -> None:
    make, severity, words = WRONG[wrong]
    found = [
        symptom for symptom in symptoms(make()) if symptom.severity is severity and words in symptom.what
    ]
    assert len(found) == 1, symptoms(make())
    assert all((found[0].evidence, found[0].why, found[0].remedy))


def test_memory_that_our_own_replicas_hold_is_not_somebody_elses() -> None:
    facts = replace(busy_gpu(), service=SERVING)
    assert symptoms(facts) == []
