"""Tools that put a load on a service, unmodified: every request that they send is answered.

Part of `sh run_tests.sh --clients`, which installs them.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.fakes.engine_process import REPOSITORY, running_engine
from tests.gateway.gateway_process import running_gateway

CLIENTS = os.environ.get("AUTOGLM_TEST_CLIENTS", "")
pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(not CLIENTS, reason="run_tests.sh --clients"),
]
REQUESTS = 10


def test_aiperf_counts_no_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").symlink_to(REPOSITORY / "src/autoglm_serve/demo/files/vision/hf")
    with running_engine("--chunks", "8") as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        command = [
            *(f"{CLIENTS}/aiperf/bin/aiperf", "profile", "-m", "demo", "--endpoint-type", "chat"),
            *("--url", f"http://127.0.0.1:{gateway.port}", "--tokenizer", "./tokenizer", "--streaming"),
            *("--request-count", str(REQUESTS), "--concurrency", "2", "--ui-type", "none"),
            *("--artifact-dir", str(tmp_path / "out"), "--output-tokens-mean", "8"),
            *("--synthetic-input-tokens-mean", "20"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        gateway.wait_for_metric("autoglm_requests_total", REQUESTS, outcome="ok")
        assert gateway.metric("autoglm_requests_total") == REQUESTS
