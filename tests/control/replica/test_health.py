"""Every way in which a server can answer, or not."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from autoglm_serve.control.replica.health import Health, ask, counters, generate
from autoglm_serve.engines.base import ANY_WORK
from autoglm_serve.launch.ports import PortLease
from tests.fakes.clock import settled

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(answer: bytes, *, hold: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if hold:
                await reader.read()
        await closed(writer)

    return handle


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def asked(question: Callable[[str], Coroutine[Any, Any, object]], handler: Handler) -> object:
    async def main() -> object:
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            found = await question(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await settled()
            return found

    return asyncio.run(main())


def health_of(handler: Handler, *, path: str = "/health", timeout_s: float = 5.0) -> object:
    return asked(lambda url: ask(url, path, timeout_s=timeout_s), handler)


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Health.OK),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Health.OK),
        (b"HTTP/1.1 503 Loading\r\n\r\n", Health.NOT_YET),
        (b"HTTP/1.1 500 X\r\n\r\n", Health.NOT_YET),
        (b"HTTP/1.1 429 X\r\n\r\n", Health.NOT_YET),
        (b"HTTP/1.1 404 X\r\n\r\n", Health.ABSENT),
        (b"HTTP/1.1 401 X\r\n\r\n", Health.ABSENT),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Health.SILENT),
        (b"HTTP/1.1 hello\r\n", Health.SILENT),
        (b"x" * 200_000, Health.SILENT),
        (b"", Health.SILENT),
    ],
)
def test_the_status_line_decides(answer: bytes, health: Health) -> None:
    assert health_of(says(answer)) is health


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"choices":[]}', Health.OK),
        (b'HTTP/1.1 200 OK\r\n\r\n{"choices":[]}', Health.OK),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Health.NOT_YET),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", Health.SILENT),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", Health.NOT_YET),
        (b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n", Health.ABSENT),
        (b"", Health.SILENT),
    ],
)
def test_a_token_counts_once_it_is_here(answer: bytes, health: Health) -> None:
    assert asked(lambda url: generate(url, "m", timeout_s=5), says(answer)) is health


def test_a_token_that_does_not_come_is_not_waited_for_longer_than_said() -> None:
    assert asked(lambda url: generate(url, "m", timeout_s=0.05), says(b"", hold=True)) is Health.SILENT


def test_counters_change_with_the_work_of_the_engine_and_with_nothing_else() -> None:
    def told(*lines: str) -> object:
        text = "\n".join(lines).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text)
        return asked(lambda url: counters(url, ANY_WORK, timeout_s=5), says(head + text))

    first = told('vllm:generation_tokens_total{x="y"} 5.0', "process_cpu_seconds_total 1")
    assert first is not None
    assert first == told('vllm:generation_tokens_total{x="y"} 5.0', "process_cpu_seconds_total 2")
    assert first != told('vllm:generation_tokens_total{x="y"} 6.0', "process_cpu_seconds_total 1")
    assert told("llamacpp:n_decode_total 3") is not None
    assert told("vllm:num_requests_waiting 3") is None


def test_an_answer_is_not_waited_for_beyond_its_first_line() -> None:
    assert health_of(says(b"HTTP/1.1 200 OK\r\n", hold=True)) is Health.OK


def test_a_server_that_says_nothing_is_silent_at_the_deadline() -> None:
    assert health_of(says(b"", hold=True), timeout_s=0.05) is Health.SILENT


def test_a_port_where_nobody_listens_is_silent() -> None:
    with PortLease() as lease:
        assert asyncio.run(ask(f"http://127.0.0.1:{lease.port}", "/", timeout_s=5)) is Health.SILENT


def test_the_path_of_the_base_url_stays_in_front() -> None:
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await closed(writer)

    async def main() -> Health:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            health = await ask(f"http://127.0.0.1:{port}/base/", "/health", timeout_s=5)
            await settled()
            return health

    assert asyncio.run(main()) is Health.OK
    assert asked == [b"GET /base/health HTTP/1.1\r\n"]
