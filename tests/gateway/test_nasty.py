"""One client's nasty request beside another's: what it is refused with, and that others hardly notice."""

from pathlib import Path

import pytest

from benchmarks.gateway import stand_in
from benchmarks.nasty import agent, alone, send
from tests.fakes.nasty import BODIES
from tests.gateway.gateway_process import running_gateway

pytestmark = [pytest.mark.process, pytest.mark.slow]

_LONGEST_MS = 400.0
"""On a machine that tests share; what it takes on one that is quiet is a matter for the benchmark (50 ms).
Before there were bounds, each of these bodies took from half a second to minutes."""


def test_no_body_holds_up_another_client(tmp_path: Path) -> None:
    with stand_in() as engine, running_gateway(tmp_path, [f"http://127.0.0.1:{engine}"]) as gateway:
        quiet_ms = alone(gateway, seconds=1.0).longest_ms
        for name, nasty in BODIES.items():
            body = nasty[2]()
            with agent(gateway.port) as asking:
                status = send(gateway, nasty, body)
            assert status in (200, 400, 404, 502), name
            assert max(asking.took_s) * 1000 < _LONGEST_MS + 3 * quiet_ms, name
