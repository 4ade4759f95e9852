"""One attacker beside a phone agent: how long its steps take, whether one fails, what memory it takes.

    python -m benchmarks.attackers [--seconds 60] [--only NAME,…] [--json out.json]

A whole service with the bundled model. An agent sends a picture and takes the streamed answer, again and
again; beside it one attacker repeats one attack of `tests.fakes.nasty` or of `tests.gateway.test_advisories`,
as fast as it is answered. Held against the agent alone, before and after: p99 within 1.5 times, no step
failed, memory back.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import orjson
import psutil

from benchmarks.machine import hardware_and_load
from tests.fakes.nasty import BODIES
from tests.fakes.pictures import image, png
from tests.gateway.test_advisories import ATTACKS, UNPUBLISHED
from tests.process.service_process import ServiceProcess, running_service

_MOST = 1.5
_STEP = {
    "messages": [{"role": "user", "content": [image(png(270, 600)), {"type": "text", "text": "点击设置"}]}],
    "max_tokens": 12,
    "stream": True,
}
_LOOK_S = 0.1
Attack = tuple[str, str, bytes]
"""Path, content type, body."""


@dataclass(slots=True, kw_only=True)
class Beside:
    """What the agent saw beside one attack."""

    attack: str
    steps: int
    failed: int
    p50_s: float
    p99_s: float
    most_mib: int
    attacks: int


@dataclass(slots=True)
class Agent:
    """Takes one step after the other until it is told to stop."""

    port: int
    took_s: list[float] = field(default_factory=list)
    failed: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopped.is_set():
            begun_s = time.perf_counter()
            try:
                whole = self._step()
            except (OSError, http.client.HTTPException):
                whole = False
            self.failed += not whole
            self.took_s.append(time.perf_counter() - begun_s)

    def _step(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(_STEP))
            answer = connection.getresponse()
            return answer.status == 200 and answer.read().endswith(b"data: [DONE]\n\n")
        finally:
            connection.close()


def attacks() -> dict[str, Callable[[], Attack]]:
    """Each by its name."""
    found: dict[str, Callable[[], Attack]] = {name: partial(_made, *nasty) for name, nasty in BODIES.items()}
    for name, path, body, *_ in (*ATTACKS, *UNPUBLISHED):
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        found.setdefault(str(name), partial(_made, str(path), "application/json", partial(bytes, raw)))
    return found


def _made(path: str, kind: str, make: Callable[[], bytes]) -> Attack:
    return path, kind, make()


@contextmanager
def attacker(port: int, attack: Attack | None) -> Iterator[list[int]]:
    """Repeats it meanwhile; the statuses that it was answered with."""
    stopped, statuses = threading.Event(), list[int]()

    def run() -> None:
        while attack is not None and not stopped.is_set():
            with suppress(OSError, http.client.HTTPException):
                statuses.append(_sent(port, attack))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        stopped.set()
        thread.join()


def _sent(port: int, attack: Attack) -> int:
    path, kind, body = attack
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, {"content-type": kind, "authorization": "Bearer attacker"})
        return connection.getresponse().status
    finally:
        connection.close()


def beside(service: ServiceProcess, name: str, attack: Attack | None, seconds: float) -> Beside:
    agent, most_bytes = Agent(service.port), 0
    thread = threading.Thread(target=agent.run)
    with attacker(service.port, attack) as statuses:
        thread.start()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            most_bytes = max(most_bytes, _rss_bytes(service))
            time.sleep(_LOOK_S)
        agent.stopped.set()
        thread.join()
    took_s = sorted(agent.took_s)
    return Beside(
        attack=name,
        steps=len(took_s),
        failed=agent.failed,
        p50_s=took_s[len(took_s) // 2],
        p99_s=took_s[int(0.99 * (len(took_s) - 1))],
        most_mib=most_bytes >> 20,
        attacks=len(statuses),
    )


def _rss_bytes(service: ServiceProcess) -> int:
    """Of the service and all that it runs."""
    total = 0
    for pid in (service.process.pid, *service.pids()):
        with suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="One attacker beside a phone agent.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", help="names of attacks, separated by commas")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    known = attacks()
    names = arguments.only.split(",") if arguments.only else list(known)
    with running_service("--replicas", "2") as service:
        told = [beside(service, "(alone)", None, arguments.seconds)]
        told += [beside(service, name, known[name](), arguments.seconds) for name in names]
        told.append(beside(service, "(alone)", None, arguments.seconds))
    quiet_s = max(told[0].p99_s, told[-1].p99_s)
    write = sys.stdout.write
    write(f"{hardware_and_load()}\n")
    write(
        f"{'beside':36s} {'steps':>6s} {'failed':>6s} {'p50 s':>7s} {'p99 s':>7s} {'times':>6s} {'MiB':>6s}\n"
    )
    for each in told:
        times = each.p99_s / quiet_s
        write(
            f"{each.attack[:36]:36s} {each.steps:6d} {each.failed:6d} {each.p50_s:7.3f} {each.p99_s:7.3f} "
            f"{times:6.2f} {each.most_mib:6d}{' *' if each.failed or times > _MOST else ''}\n"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in told], indent=1))


if __name__ == "__main__":
    main()
