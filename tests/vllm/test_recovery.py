"""A real vLLM is killed in the middle of a stream with a picture, and the stream goes on with another.

Opt-in, as `test_real_vllm` is. It dies in two ways: without its engine core vLLM sends an error event and a
proper [DONE]; without its API server it just closes, and leaves the engine core behind.
"""

import json
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pytest

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.gateway.wire import sse
from autoglm_serve.launch.ports import PortLease
from tests.gateway.gateway_process import GatewayProcess, fleet_of, running_gateway
from tests.vllm.test_real_vllm import PYTHON, end, on_cpu, questions, start, wait_until_ready

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="AUTOGLM_TEST_VLLM_PYTHON names no Python with vLLM"),
]

logger = logging.getLogger(__name__)
TOKENS = 120
KILLED_AFTER = 20


@pytest.mark.parametrize("victim", ["engine core", "API server"])
def test_a_stream_with_a_picture_goes_on_with_another_vllm(tmp_path: Path, victim: str) -> None:
    with ExitStack() as held:
        leases = [held.enter_context(PortLease()) for _ in range(2)]
        started = [start(on_cpu(), tmp_path, lease.port) for lease in leases]
        for process, _ in started:
            held.callback(end, process)
        with ThreadPoolExecutor() as pool:
            for (process, log), lease in zip(started, leases, strict=True):
                pool.submit(wait_until_ready, process, log, lease.port).result()
        fleet = fleet_of(
            [f"http://127.0.0.1:{lease.port}" for lease in leases],
            engine="vllm",
            upstream_model="phone",
            continuation=Continuation.FLAGS,
        )
        gateway = held.enter_context(running_gateway(tmp_path, fleet=fleet))
        whole = text_of(ask(gateway, lambda _: None))
        body = ask(gateway, lambda serving: kill(started[serving][0].pid, victim))
    values = [json.loads(data) for data in sse.data_of(body) if data != sse.DONE]
    assert not [value for value in values if "error" in value]
    assert len({(value["id"], value["created"], value["model"]) for value in values}) == 1
    choices = [choice for value in values for choice in value["choices"]]
    assert sum("role" in choice["delta"] for choice in choices) == 1
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
    usage = values[-1]["usage"]
    assert usage["completion_tokens"] == TOKENS
    assert usage["total_tokens"] == usage["prompt_tokens"] + TOKENS
    assert body.count(b"[DONE]") == 1
    text = text_of(body)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, text, strict=False)))
    logger.info("%s killed: %d of %d characters as undisturbed", victim, same, len(whole))
    assert whole.startswith(text[: KILLED_AFTER // 2])


def ask(gateway: GatewayProcess, at_the_cut: Any) -> bytes:
    """One greedy stream; `at_the_cut` is told which replica serves once some of it is here."""
    message = {"role": "user", "content": questions()[1]}
    fields = {"model": "demo", "messages": [message], "stream": True, "temperature": 0, "ignore_eos": True}
    fields |= {"max_tokens": TOKENS, "stream_options": {"include_usage": True}}
    data = json.dumps(fields).encode()
    with gateway.connect() as client:
        client.settimeout(120)
        client.sendall(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
        got = _until(client, b"", lambda so_far: so_far.count(b'"content"') > KILLED_AFTER)
        head = got.partition(b"\r\n\r\n")[0].decode()
        at_the_cut(int(head.partition("x-autoglm-replica: r")[2][0]))
        got = _until(client, got, lambda _: False)
    return got.partition(b"\r\n\r\n")[2]


def _until(client: socket.socket, got: bytes, enough: Any) -> bytes:
    while not enough(got) and (data := client.recv(65536)):
        got += data
    return got


def kill(server_pid: int, victim: str) -> None:
    server = psutil.Process(server_pid)
    if victim == "engine core":
        server = next(one for one in server.children(recursive=True) if "EngineCore" in one.name())
    server.send_signal(signal.SIGKILL)


def text_of(body: bytes) -> str:
    values = [json.loads(data) for data in sse.data_of(body) if data != sse.DONE]
    choices = [choice for value in values for choice in value.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
