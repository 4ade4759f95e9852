"""Clients behind proxies, and how much one of them may have, with a real worker."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from autoglm_serve.gateway.wire.limits import ConnectionLimits
from tests.fakes.engine_process import EngineProcess
from tests.gateway.gateway_process import running_gateway
from tests.gateway.raw_http import Wire, chat, post, wire

pytestmark = pytest.mark.process
LOCAL = ("127.0.0.0/8",)
LIMITS = ConnectionLimits(max_held_bytes=1_000_000, max_client_bytes=500_000, max_client_connections=2)
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 400000\r\n"


def announced(client: Wire, more: str = "") -> int:
    """With which status a body of 400 KB is let come or refused; 500 KB are one client's."""
    return client.send(f"{HEAD}{more}\r\n").answer().status


def test_those_behind_a_trusted_proxy_are_told_apart(tmp_path: Path, engine: EngineProcess) -> None:
    with (
        running_gateway(tmp_path, [engine.url], limits=LIMITS, trusted_proxies=LOCAL) as gateway,
        wire(gateway) as one,
        wire(gateway) as same,
        wire(gateway) as other,
    ):
        assert announced(one, "X-Forwarded-For: 203.0.113.7\r\n") == 100
        assert announced(same, "X-Forwarded-For: 198.51.100.1, 203.0.113.7\r\n") == 503
        assert announced(other, "X-Forwarded-For: 203.0.113.8\r\n") == 100


def test_a_proxy_that_is_not_trusted_is_one_client(tmp_path: Path, engine: EngineProcess) -> None:
    with (
        running_gateway(tmp_path, [engine.url], limits=LIMITS, trusted_proxies=("10.9.9.9",)) as gateway,
        wire(gateway) as one,
        wire(gateway) as other,
        wire(gateway) as liar,
    ):
        assert announced(one, "X-Forwarded-For: 203.0.113.7\r\n") == 100
        assert announced(other, "X-Forwarded-For: 203.0.113.8\r\n") == 503
        assert liar.send(b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\n").answer().status == 400


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_client_that_a_proxy_introduces_is_served(tmp_path: Path, engine: EngineProcess, size: int) -> None:
    said = b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n" + post(chat("hello"))
    with running_gateway(tmp_path, [engine.url], trusted_proxies=LOCAL) as gateway, wire(gateway) as client:
        for start in range(0, len(said), size):
            client.send(said[start : start + size])
        assert client.answer().status == 200
        assert client.send(post(chat("again"))).answer().status == 200


def test_without_an_introduction_a_trusted_proxy_is_heard_all_the_same(
    tmp_path: Path, engine: EngineProcess
) -> None:
    with running_gateway(tmp_path, [engine.url], trusted_proxies=LOCAL) as gateway:
        assert gateway.chat()[0] == 200
        with wire(gateway) as client:
            assert client.send(b"PROXY nonsense\r\n").rest() == b""


def test_one_client_has_no_more_connections_than_its_share(tmp_path: Path, engine: EngineProcess) -> None:
    said = b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n" + post(chat("hello"))
    with running_gateway(tmp_path, [engine.url], limits=LIMITS, trusted_proxies=LOCAL) as gateway:
        with ExitStack() as clients:
            one, two, three, other = (clients.enter_context(wire(gateway)) for _ in range(4))
            assert [each.send(said).answer().status for each in (one, two)] == [200, 200]
            refused = three.send(said).answer()
            assert (refused.status, refused.error["code"]) == (429, "too_many_connections")
            assert other.send(said.replace(b".7 ", b".8 ")).answer().status == 200
        status = 0
        while status != 200:  # until the worker has seen them leave
            with wire(gateway) as later:
                status = later.send(said).answer().status
