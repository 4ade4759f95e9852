"""How long from `autoglm serve` to the first token, and what the service weighs when it is idle.

    python benchmarks/start.py [--runs 5] [-- flags of serve]

Installed and warm: the first run is not counted. Memory is resident set size after two idle seconds, engines
apart, since theirs depends on the model.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

SERVE = (sys.executable, "-m", "autoglm_serve.cli.main", "serve", "--port", "0", "--log-format", "json")
QUESTION = {"messages": [{"role": "user", "content": "你是谁？"}], "stream": True, "max_tokens": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start."""

    serving_s: float
    first_token_s: float
    control_plane_bytes: int
    gateway_bytes: int


def measure(flags: list[str]) -> Run:
    began_s = time.perf_counter()
    with running(flags) as process:
        url = announced_url(process)
        serving_s = time.perf_counter() - began_s
        wait_for_token(url)
        first_token_s = time.perf_counter() - began_s
        time.sleep(2)
        service = psutil.Process(process.pid)
        workers = [child for child in service.children() if "autoglm_serve.gateway.worker" in child.cmdline()]
        return Run(
            serving_s=serving_s,
            first_token_s=first_token_s,
            control_plane_bytes=service.memory_info().rss,
            gateway_bytes=sum(worker.memory_info().rss for worker in workers),
        )


@contextmanager
def running(flags: list[str]) -> Iterator["subprocess.Popen[str]"]:
    with tempfile.TemporaryDirectory() as folder:
        argv = [*SERVE, "--state-dir", folder, *flags]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=30)


def announced_url(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "url" in (entry := json.loads(line)):
            return str(entry["url"])
    raise SystemExit("the service ended before it served")


def wait_for_token(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(QUESTION).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        for line in reply:
            if b'"content":"' in line:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    args, flags = parser.parse_known_args()
    measure(flags)
    runs = [measure(flags) for _ in range(args.runs)]

    def median(values: list[float]) -> float:
        return statistics.median(values)

    print(f"{psutil.cpu_count()} cores, median of {len(runs)} starts")
    print(f"serving after      {median([run.serving_s for run in runs]):.2f} s")
    print(f"first token after  {median([run.first_token_s for run in runs]):.2f} s")
    print(f"control plane      {median([run.control_plane_bytes for run in runs]) / 1e6:.0f} MB")
    print(f"gateway workers    {median([run.gateway_bytes for run in runs]) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
