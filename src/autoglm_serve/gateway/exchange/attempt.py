"""One attempt: a question put to one replica, and its reply handed to the delivery.

Owns connections while they are used. Knows nothing of why this replica, or of what follows when it fails.
"""

import asyncio
import re

import orjson

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.gateway.access.identity import REQUEST_ID
from autoglm_serve.gateway.admission.admit import Call
from autoglm_serve.gateway.exchange.delivery import Caller
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.question import Question
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.wire.envelope import JSON_TYPE
from autoglm_serve.gateway.wire.http import Headers, request_head
from autoglm_serve.gateway.wire.splice import slot
from autoglm_serve.gateway.wire.upstream import Connection

_PASSED_ON = (b"accept", b"traceparent")
_HARMLESS = re.compile(rb"[ -~]{1,256}")
"""What of those may stand in an engine's log."""


async def ask(exchange: Exchange, question: Question, replica: ReplicaView) -> Ending:
    """Ask one replica and relay what it answers. Leaves nothing behind, whoever goes first."""
    worker = exchange.worker
    message = _message(exchange, question, replica)
    asked = False
    for fresh in (False, True):
        connection = None if fresh else worker.pool.idle(replica.base_url)
        if connection is None:
            try:
                connection = await worker.pool.connect(replica.base_url, ours=replica.is_ours)
            except OSError as error:
                return Ending(
                    result=Result.LOST,
                    reason=f"cannot connect: {error}",
                    asked=asked,
                    refused=isinstance(error, ConnectionRefusedError),
                )
        kept = connection.used > 0
        ending: asyncio.Future[Ending] = worker.loop.create_future()
        relay = Relay(
            exchange.delivery,
            worker.loop,
            ending,
            question,
            extra=((b"x-autoglm-replica", replica.id.encode()), *exchange.limits_left),
            finish_needed=worker.habits.finish_needed(replica),
        )
        worker.streams.enter(replica.base_url, relay)
        try:
            result = await relayed(message, connection, relay, exchange.client)
        finally:
            worker.streams.leave(replica.base_url, relay)
        # A kept connection that the engine had closed at that moment says nothing of the replica. By now it
        # may be somebody else's: only what the attempt itself saw counts.
        stale = kept and result.result is Result.LOST and not result.status and not result.given_up
        if not stale:
            break
        asked = True  # and if the replica is gone now, it may have died of it
    return result


async def relayed(
    message: tuple[bytes | memoryview, ...], connection: Connection, relay: Relay, client: Caller
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
        return await relay.ending
    finally:
        relay.abandon()


def _message(exchange: Exchange, question: Question, replica: ReplicaView) -> tuple[bytes | memoryview, ...]:
    """The request as the replica gets it: the client's bytes, with the model's name in its own terms."""
    call, request = exchange.call, exchange.request
    pieces: tuple[bytes | memoryview, ...] = (question.body,)
    if replica.upstream_model and replica.upstream_model != call.named_model:
        pieces = _renamed(call, question, replica.upstream_model)
    headers: Headers = ((b"content-type", call.content_type), (REQUEST_ID, _attempt_id(exchange)))
    for name in _PASSED_ON:
        if name in request.headers and _HARMLESS.fullmatch(request.headers[name]):
            headers += ((name, request.headers[name]),)
    if replica.takes_key:  # ours with it; a client's key never leaves this service
        headers += exchange.worker.upstream_key.headers
    host = replica.base_url.partition("://")[2].partition("/")[0] or "localhost"
    return request_head(b"POST", request.path, host.encode(), headers, sum(map(len, pieces))), *pieces


def _renamed(call: Call, question: Question, name: str) -> tuple[bytes | memoryview, ...]:
    """The body with another name of the model; a form that names none goes as it is."""
    body, place = question.body, question.model_slot
    if call.content_type.startswith(JSON_TYPE):
        return (place or slot(body, "model")).filled(body, orjson.dumps(name))
    return place.filled(body, name.encode()) if place else (body,)


def _attempt_id(exchange: Exchange) -> bytes:
    """Some engines refuse a second request of one id while they have not let go of the first."""
    attempt = exchange.account.attempts
    return exchange.request.id if attempt < 2 else b"%b-%d" % (exchange.request.id, attempt)
