"""What one client's nasty request costs another: an agent's requests beside each of a list of bodies.

    python -m benchmarks.nasty [--json out.json]

One gateway worker with an engine stand-in that answers at once. An agent asks again and again over one
connection, alone and beside each body of `tests.fakes.nasty`, sent three times in a row. The figure is the
longest of its requests beside a body; what it takes alone is said too, since a busy machine adds to both.
"""

import argparse
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gateway import stand_in
from benchmarks.machine import hardware_and_load
from tests.fakes.nasty import BODIES, Nasty
from tests.gateway.gateway_process import GatewayProcess, running_gateway

_TIMES = 3
_QUESTION = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}]})


@dataclass(slots=True, kw_only=True)
class Beside:
    """What an agent saw beside one body."""

    body: str
    size_mb: float
    status: int
    longest_ms: float
    p50_ms: float
    requests: int


@dataclass(slots=True)
class Agent:
    """Asks as fast as it is answered, until told to stop."""

    port: int
    took_s: list[float] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while not self.stopped.is_set():
            begun_s = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", _QUESTION)
            connection.getresponse().read()
            self.took_s.append(time.perf_counter() - begun_s)
            time.sleep(0.002)  # an agent thinks; and this one leaves the processor to others
        connection.close()


@contextmanager
def agent(port: int) -> Iterator[Agent]:
    asking = Agent(port)
    thread = threading.Thread(target=asking.run)
    thread.start()
    try:
        yield asking
    finally:
        asking.stopped.set()
        thread.join()


def send(gateway: GatewayProcess, nasty: Nasty, body: bytes) -> int:
    """The status that it was answered with."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
    try:
        connection.request(
            "POST", nasty[0], body, {"content-type": nasty[1], "authorization": "Bearer nasty"}
        )
        return connection.getresponse().status
    finally:
        connection.close()


def beside(gateway: GatewayProcess, name: str, nasty: Nasty) -> Beside:
    body = nasty[2]()
    with agent(gateway.port) as asking:
        status = [send(gateway, nasty, body) for _ in range(_TIMES)][-1]
    return _told(name, len(body), status, asking)


def alone(gateway: GatewayProcess, seconds: float = 3.0) -> Beside:
    with agent(gateway.port) as asking:
        time.sleep(seconds)
    return _told("(alone)", 0, 0, asking)


def _told(name: str, size_bytes: int, status: int, asking: Agent) -> Beside:
    took_ms = sorted(each * 1000 for each in asking.took_s)
    return Beside(
        body=name,
        size_mb=size_bytes / 2**20,
        status=status,
        longest_ms=took_ms[-1],
        p50_ms=took_ms[len(took_ms) // 2],
        requests=len(took_ms),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="One client's nasty request beside another's.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with (
        TemporaryDirectory() as state,
        stand_in() as engine,  # it does not look into what it is asked: that would take it longer
        running_gateway(Path(state), [f"http://127.0.0.1:{engine}"]) as gateway,
    ):
        told = [alone(gateway)]
        told += [beside(gateway, name, nasty) for name, nasty in BODIES.items()]
        told.append(alone(gateway))
    print(hardware_and_load())
    print(f"{'beside':34s} {'MB':>6s} {'status':>6s} {'longest ms':>11s} {'p50 ms':>7s}")
    for each in told:
        print(
            f"{each.body:34s} {each.size_mb:6.1f} {each.status:6d} {each.longest_ms:11.1f} {each.p50_ms:7.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in told], indent=1))


if __name__ == "__main__":
    main()
