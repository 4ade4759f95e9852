"""One attempt: a question put to one replica, and its reply handed to the delivery.

Owns connections while they are used. Knows nothing of why this replica, or of what follows when it fails.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.gateway.exchange.delivery import Caller, Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.recovery.seam import Seam
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.http import Headers, Request, request_head
from autoglm_serve.gateway.wire.splice import with_field
from autoglm_serve.gateway.wire.upstream import Connection

_PASSED_ON = (b"accept", b"x-request-id", b"traceparent")
_KEYS = (b"authorization",)
"""Engines that get the client's key: only a service that we did not start may have keys of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a replica is asked."""

    request: Request
    content_type: bytes
    body: bytes
    named_model: str | None
    """The model's name as it stands in the body."""
    splicer: Seam | None = None
    """Set where the answer goes on with a stream that another replica began."""
    ahead_tokens: int = 0
    """What the replica has to work off before the answer begins, this question's prompt among it."""
    may_go: Callable[[], bool] | None = None
    """Whether another replica could take the request."""
    impatient: bool = False
    """It goes there if this one does not begin to answer."""
    whole: bool = False
    """The answer comes in one piece."""


async def ask(
    question: Question, replica: ReplicaView, client: Caller, delivery: Delivery, worker: Worker
) -> Ending:
    """Ask one replica and relay what it answers. Leaves nothing behind, whoever goes first."""
    message = _message(question, replica)
    asked = False
    for fresh in (False, True):
        connection = None if fresh else worker.pool.idle(replica.base_url)
        if connection is None:
            try:
                connection = await worker.pool.connect(replica.base_url)
            except OSError as error:
                return Ending(result=Result.LOST, reason=f"cannot connect: {error}", asked=asked)
        kept = connection.used > 0
        ending: asyncio.Future[Ending] = worker.loop.create_future()
        extra = ((b"x-autoglm-replica", replica.id.encode()),)
        relay = Relay(
            delivery,
            worker.loop,
            ending=ending,
            extra=extra,
            splicer=question.splicer,
            ahead_tokens=question.ahead_tokens,
            may_go=question.may_go,
            impatient=question.impatient,
            whole=question.whole,
            finish_needed=worker.habits.finish_needed(replica),
        )
        worker.streams.enter(replica.base_url, relay)
        try:
            result = await exchange(message, connection, relay, ending, client)
        finally:
            worker.streams.leave(replica.base_url, relay)
        # A kept connection that the engine had closed at that moment says nothing of the replica. By now it
        # may be somebody else's: only what the attempt itself saw counts.
        stale = kept and result.result is Result.LOST and not result.status and not result.given_up
        if not stale:
            break
        asked = True  # and if the replica is gone now, it may have died of it
    return result


async def exchange(
    message: tuple[bytes, ...],
    connection: Connection,
    relay: Relay,
    ending: "asyncio.Future[Ending]",
    client: Caller,
) -> Ending:
    """Send a message and wait for the end of its reply, or for nobody to want it any more."""
    if not connection.open:  # it was closed as soon as it was made
        return Ending(result=Result.LOST, reason="connection closed before the request was sent")
    relay.connection = connection
    client.on_pause, client.on_resume = relay.pause, relay.resume
    try:
        connection.send(message, relay)
        if client.paused:  # it was slow before the replica that it read from was lost
            relay.pause()
        return await ending
    finally:
        relay.abandon()


def _message(question: Question, replica: ReplicaView) -> tuple[bytes, ...]:
    """The request as the replica gets it: the client's bytes, with the model's name in its own terms."""
    body, request = question.body, question.request
    if replica.upstream_model and replica.upstream_model != question.named_model:
        body = with_field(body, "model", replica.upstream_model)
    headers: Headers = ((b"content-type", question.content_type),)
    for name in (*_PASSED_ON, *(_KEYS if replica.takes_key else ())):
        if name in request.headers:
            headers += ((name, request.headers[name]),)
    host = replica.base_url.partition("://")[2].partition("/")[0] or "localhost"
    return request_head(b"POST", request.path, host.encode(), headers, len(body)), body
