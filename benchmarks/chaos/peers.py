"""What a client sees of a stream whose engine is killed, with other routers in front of the same two engines.

    python -m benchmarks.chaos peers \\
        --router 'sglang-router=python -m sglang_router.launch_router --host 127.0.0.1 --port {port}
                  --worker-urls {one} {two} --policy round_robin' \\
        --router 'vllm-router=vllm-router --host 127.0.0.1 --port {port} --worker-urls {one} {two}' \\
        --router 'litellm=litellm --host 127.0.0.1 --port {port} --config {litellm}' \\
        --router 'nginx=nginx -c {nginx}'

Each router is installed by whoever measures; {nginx} and {litellm} are the least configuration, written for
the run. Per trial: two fresh engines, one stream of 50 pieces, kill -9 of the engine that serves it after the
tenth. This project's gateway is measured first, the same way.
"""

import argparse
import asyncio
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.chaos.client import Answer, ask, chat
from benchmarks.machine import hardware_and_load
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import running_gateway

_PIECES = 50
_ENGINE = ("--chunks", str(_PIECES), "--delay-s", "0.02", "--models", "demo", "--owned-by", "vllm")
_NGINX = """daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream engines {{ server {one}; server {two}; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://engines; proxy_http_version 1.1; proxy_buffering off; }} }}
}}
"""
_LITELLM = """general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
model_list:
- model_name: demo
  litellm_params: {{model: openai/demo, api_key: x, api_base: "http://{one}/v1"}}
- model_name: demo
  litellm_params: {{model: openai/demo, api_key: x, api_base: "http://{two}/v1"}}
"""


@contextmanager
def router(command: str, one: EngineProcess, two: EngineProcess) -> Iterator[int]:
    """The port of another router, once it answers a chat."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        known = {"port": str(port), "folder": folder}
        bare = known | {"one": f"127.0.0.1:{one.port}", "two": f"127.0.0.1:{two.port}"}
        for name, text in (("nginx", _NGINX), ("litellm", _LITELLM)):
            path = Path(folder) / f"{name}.yaml"
            path.write_text(text.format(**bare))
            known[name] = str(path)
        argv = shlex.split(command.format(one=one.url, two=two.url, **known))
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                _wait(port, process)
                yield port
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + 60
    while asyncio.run(ask(port, chat("warm-up", model="demo", chunks=1))).status != 200:
        assert process.poll() is None, f"it ended with status {process.returncode}"
        assert time.monotonic() < deadline_s, "it never answered"
        time.sleep(0.2)


def trial(port: int, engines: tuple[EngineProcess, EngineProcess]) -> str:
    """What the client saw."""
    killed: list[int] = []

    def strike(answer: Answer) -> None:
        if not killed and answer.body.count(b'"content"') > 10:
            # The engine's pid is in the id that it gave the stream.
            killed.extend(engine.pid for engine in engines if b"-%d-" % engine.pid in answer.body)
            for engine in engines:
                if engine.pid in killed:
                    engine.kill()

    answer = asyncio.run(ask(port, chat("hello", model="demo"), on_piece=strike))
    assert killed, "the serving engine was not found"
    got = answer.text.split()
    if got == [f"tok{index}" for index in range(_PIECES)] and not answer.error and not answer.wrong():
        return "the whole stream"
    told = [answer.error and "an error event", answer.lost and "the connection cut", *answer.wrong()]
    return f"{len(got)} of {_PIECES} pieces; " + ", ".join(each for each in told if each)


def measure(name: str, command: str | None, trials: int) -> None:
    seen: Counter[str] = Counter()
    for _ in range(trials):
        with ExitStack() as held:
            one, two = (held.enter_context(running_engine(*_ENGINE)) for _ in range(2))
            if command is None:
                folder = held.enter_context(tempfile.TemporaryDirectory())
                port = held.enter_context(running_gateway(Path(folder), [one.url, two.url])).port
            else:
                port = held.enter_context(router(command, one, two))
            seen[trial(port, (one, two))] += 1
    print(f"{name}: " + "; ".join(f"{count} x {what}" for what, count in seen.most_common()), flush=True)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--router", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--trials", type=int, default=5)


def run(arguments: argparse.Namespace) -> bool:
    print(hardware_and_load())
    measure("autoglm-serve", None, arguments.trials)
    for named in arguments.router:
        name, _, command = named.partition("=")
        measure(name, " ".join(command.split()), arguments.trials)
    return True
