"""What is done to a running service while clients ask it: none of them may notice."""

import os
import signal
from pathlib import Path

import pytest

from tests.process.clients import asking
from tests.process.service_process import running_service
from tests.process.test_service import alive, all_ready

pytestmark = pytest.mark.process


def test_the_control_plane_may_be_killed_and_comes_back_to_what_runs(tmp_path: Path) -> None:
    with (
        running_service("--replicas", "2", "--gateway-workers", "2", state_dir=tmp_path) as first,
        asking(first) as clients,
    ):
        first.wait_for_replicas(all_ready)
        before = first.records()
        first.process.kill()
        first.process.wait()
        clients.wait_for(20)  # nobody is in control, and nobody notices
        with running_service(
            "--replicas", "2", "--gateway-workers", "2", "--port", str(first.port), state_dir=tmp_path
        ) as second:
            assert second.records() == before
            clients.wait_for(20)
            assert all_ready(second.replicas())
            os.kill(before["r0"], signal.SIGKILL)
            second.wait_for_replicas(lambda replicas: replicas[0]["restarts"] == 1 and all_ready(replicas))
            clients.wait_for(20)
            clients.stop()
    assert clients.failures == []
    assert not any(alive(pid) for pid in before.values())
