"""One attempt on a connection that was kept: when it is stale, and when it only looks so. Nothing is sent."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.exchange.attempt import ask
from autoglm_serve.gateway.exchange.delivery import Delivery
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.question import Question
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.exchange.speech_input import BufferedClient
from autoglm_serve.gateway.exchange.stream_watch import StreamWatch
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.recovery.habits import Habits
from autoglm_serve.gateway.wire.http import Request

STREAM = ((b"content-type", b"text/event-stream"),)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"tok0 "},"finish_reason":null}]}\n\n'
REPLICA = ReplicaView(
    id="r0", slot=0, model="m", engine="faulty", state=ReplicaState.READY, base_url="http://r0"
)
Play = Callable[[Relay], None]


class Line:
    """A connection that plays one reply."""

    open = True

    def __init__(self, play: Play, used: int = 0) -> None:
        self.used = used
        self._play = play

    def send(self, message: object, relay: Relay) -> None:
        self.used += 1
        self._play(relay)

    def drop(self, relay: Relay) -> None: ...


class Lines:
    """A pool with one kept connection, and new ones that play something else, or cannot be made."""

    def __init__(self, kept: Line, new: Play | None) -> None:
        self.made = 0
        self._kept = kept
        self._new = new

    def idle(self, base_url: str) -> Line:
        return self._kept

    async def connect(self, base_url: str, *, ours: bool = True) -> Line:
        self.made += 1
        if self._new is None:
            raise ConnectionRefusedError
        return Line(self._new)


def attempt(kept: Play, new: Play | None = None) -> tuple[Ending, int]:
    """How it ends, and how many connections were made."""

    async def run() -> tuple[Ending, int]:
        loop = asyncio.get_running_loop()
        pool = Lines(Line(kept, used=3), new)
        worker: Any = SimpleNamespace(
            loop=loop, pool=pool, streams=StreamWatch(5.0), habits=Habits(), counters=None
        )
        request = Request(method=b"POST", path="/v1/chat/completions", headers={}, body=b"{}", started_s=0)
        client = cast("Any", BufferedClient())
        client.start = client.write = lambda *_: None
        exchange = Exchange(worker, client, request)
        exchange.call = cast("Any", SimpleNamespace(content_type=b"application/json", named_model=None))
        exchange.delivery = Delivery(client, loop, expected=Expected(ends_with_done=True))
        return await ask(exchange, Question(body=b"{}"), REPLICA), pool.made

    return asyncio.run(run())


def ends_too_early(relay: Relay) -> None:
    relay.on_head(200, STREAM)
    relay.on_body(EVENT)
    relay.on_end()  # the connection is back in the pool, and the next request may have it by now


def is_stale(relay: Relay) -> None:
    relay.on_lost("connection closed before the end of the reply")


def test_a_stream_that_ended_too_early_is_not_asked_for_again() -> None:
    ending, made = attempt(ends_too_early, new=ends_too_early)
    assert (ending.result, ending.events, made) == (Result.LOST, 1, 0)


def test_a_stale_connection_is_replaced_by_a_new_one() -> None:
    ending, made = attempt(is_stale, new=ends_too_early)
    assert (ending.events, made) == (1, 1)


def test_a_replica_that_is_gone_with_its_connection_may_have_died_of_the_request() -> None:
    ending, made = attempt(is_stale, new=None)
    assert (ending.result, ending.asked, made) == (Result.LOST, True, 1)
