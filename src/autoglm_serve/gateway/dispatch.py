"""A request's life: admit, route, relay, recover, account. The whole of it is `dispatch` and `serve`."""

import asyncio
import logging

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.account import Account, Outcome
from autoglm_serve.gateway.admit import Call, admit
from autoglm_serve.gateway.delivery import Caller, Delivery
from autoglm_serve.gateway.endpoints import ENDPOINTS
from autoglm_serve.gateway.envelope import error_event, internal_error
from autoglm_serve.gateway.hear import hear
from autoglm_serve.gateway.http import Headers, Request, request_head
from autoglm_serve.gateway.recover import Finish, Hopeless, Resumption, Sent, Splicer, Way, read_sent, resume
from autoglm_serve.gateway.relay import Ending, Relay, Result
from autoglm_serve.gateway.router import Wish
from autoglm_serve.gateway.server import ClientConnection
from autoglm_serve.gateway.splice import with_field
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.upstream import Connection

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 12  # of one request; none is sent to the same process twice


async def dispatch(client: ClientConnection, request: Request, worker: Worker) -> None:
    """Serve one request. However it ends, it ends in one outcome, and the client is told."""
    account = Account(worker.board, request.path, request.started_s)
    try:
        async with asyncio.timeout(worker.settings.request_timeout_s or None):
            call = admit(request, ENDPOINTS[request.path], worker.fleet.view, worker.settings.media)
            account.model = call.model.name
            if call.audio:
                call = await hear(call, worker, serve)
            account.outcome = await serve(call, request, client, worker, account)
    except Refusal as refusal:
        account.outcome = Outcome.REFUSED if refusal.status < 500 else Outcome.NO_REPLICA
        _give_up(client, refusal)
    except TimeoutError:
        account.outcome = Outcome.TIMEOUT
        message = "The request took longer than this service allows (--request-timeout-s)."
        _give_up(client, Refusal(504, "request_timeout", message, type=RefusalType.SERVER))
    except asyncio.CancelledError:
        account.outcome = Outcome.CANCELLED
        raise
    except Exception:
        log.exception("a bug in the gateway ended a request to %s", request.path)
        _give_up(client, internal_error())
    finally:
        account.close(worker.loop.time())


async def serve(call: Call, request: Request, client: Caller, worker: Worker, account: Account) -> Outcome:
    """Ask replica after replica until the client has its whole answer, or nothing more can be tried."""
    delivery = Delivery(
        client,
        worker.loop,
        split_reasoning=call.split_reasoning,
        ends_with_done=call.endpoint.ends_with_done,
    )
    wish = Wish(model=call.model, cost_tokens=call.cost_tokens, client=request.client)
    ending = Ending(result=Result.LOST, reason="no replica could be asked")
    if worker.quarantine.holds(call.body, worker.loop.time()):
        raise _poisonous()
    while account.attempts < _MAX_ATTEMPTS:
        placement = await worker.router.place(
            wish, wait_ready_s=worker.settings.wait_ready_s, wait_turn_s=worker.settings.wait_turn_s
        )
        if placement is None:
            break
        with placement:
            replica = placement.replica
            account.attempts += 1
            body: bytes = call.body
            splicer: Splicer | None = None
            match _next_step(call, delivery, replica, ending):
                case Resumption() as step:
                    body, splicer = step.body, step.splicer
                    account.resumed(step.way)
                case Finish(events=events):
                    delivery.events(events)
                    delivery.finish()
                    return Outcome.OK
                case Hopeless() as hopeless:
                    return _end_cut_off(client, delivery, hopeless)
                case None:
                    pass
            ending = await attempt(call, body, request, replica, client, worker, delivery, splicer)
        account.first_byte_s = delivery.first_byte_s
        if _heed(ending, call, replica, wish, worker, begun=delivery.begun):
            break
    account.usage = ending.usage
    return _conclude(ending, call, client, delivery)


def _next_step(
    call: Call, delivery: Delivery, replica: ReplicaView, last: Ending
) -> Resumption | Finish | Hopeless | None:
    """What to ask the replica: None for the request as it came, else how to go on with what was sent."""
    if not delivery.begun:
        return None
    if not call.endpoint.ends_with_done:
        return Hopeless(reason=f"streams of {call.endpoint.path} cannot be gone on with")
    sent = read_sent(delivery.journal.chunks)
    step = resume(call.body, sent, replica.continuation, may_replay=last.result is not Result.DIVERGED)
    log.warning("a stream lost its replica (%s); on %s: %s", last.reason, replica.id, _said(step, sent))
    return step


def _heed(
    ending: Ending, call: Call, replica: ReplicaView, wish: Wish, worker: Worker, *, begun: bool
) -> bool:
    """Learn from how an attempt ended; true if it was the last. Raises Refusal for a request that kills."""
    worker.router.report(replica, good=ending.result is Result.DONE)
    if ending.result is Result.DONE:
        worker.quarantine.clear(call.body)
        return True
    wish.tried.add(replica.base_url)
    wish.begun = begun
    if ending.result is Result.LOST:
        wish.lost.add(replica.base_url)
        died = ending.asked and not ending.events
        if died and worker.quarantine.blame(call.body, worker.loop.time()):
            raise _poisonous()
    if not begun:
        log.warning("replica %s did not answer (%s); trying elsewhere", replica.id, ending.reason)
    return False


async def attempt(
    call: Call,
    body: bytes,
    request: Request,
    replica: ReplicaView,
    client: Caller,
    worker: Worker,
    delivery: Delivery,
    splicer: Splicer | None,
) -> Ending:
    """Ask one replica and relay what it answers. Leaves nothing behind, whoever goes first."""
    message = _message(call, body, request, replica)
    for fresh in (False, True):
        connection = None if fresh else worker.pool.idle(replica.base_url)
        if connection is None:
            try:
                connection = await worker.pool.connect(replica.base_url)
            except OSError as error:
                return Ending(result=Result.LOST, reason=f"cannot connect: {error}")
        ending: asyncio.Future[Ending] = worker.loop.create_future()
        extra = ((b"x-autoglm-replica", replica.id.encode()),)
        relay = Relay(delivery, worker.loop, ending=ending, extra=extra, splicer=splicer)
        worker.streams.enter(replica.base_url, relay)
        try:
            result = await _exchange(message, connection, relay, ending, client)
        finally:
            worker.streams.leave(replica.base_url, relay)
        # A kept connection that the engine had closed at that moment says nothing of the replica.
        stale = connection.used > 1 and not connection.replied and result.result is Result.LOST
        if not stale:
            break
    return result


async def _exchange(
    message: tuple[bytes, ...],
    connection: Connection,
    relay: Relay,
    ending: "asyncio.Future[Ending]",
    client: Caller,
) -> Ending:
    if not connection.open:  # it was closed as soon as it was made
        return Ending(result=Result.LOST, reason="connection closed before the request was sent")
    relay.connection = connection
    client.on_pause, client.on_resume = relay.pause, relay.resume
    try:
        connection.send(message, relay)
        return await ending
    finally:
        relay.abandon()


def _message(call: Call, body: bytes, request: Request, replica: ReplicaView) -> tuple[bytes, ...]:
    """The request as the replica gets it: the client's bytes, with the model's name in its own terms."""
    if replica.upstream_model and replica.upstream_model != call.named_model:
        body = with_field(body, "model", replica.upstream_model)
    headers: Headers = ((b"content-type", call.content_type),)
    for name in (b"accept", b"x-request-id", b"traceparent", *_AUTHORIZED.get(replica.engine, ())):
        if name in request.headers:
            headers += ((name, request.headers[name]),)
    host = replica.base_url.partition("://")[2].partition("/")[0] or "localhost"
    return request_head(b"POST", request.path, host.encode(), headers, len(body)), body


_AUTHORIZED: dict[str, tuple[bytes, ...]] = {"external": (b"authorization",)}
"""Engines that get the client's key: only a service that we did not start may have keys of its own."""


def _conclude(ending: Ending, call: Call, client: Caller, delivery: Delivery) -> Outcome:
    """Tell the client what it has not been told yet, and name the outcome."""
    if ending.result is Result.DONE:
        return Outcome.OK if ending.status < 400 else Outcome.ENGINE_REFUSED
    if delivery.begun:
        return _end_cut_off(client, delivery, Hopeless(reason="no other replica could take over"))
    if ending.body:
        client.respond(ending.status, ending.headers, ending.body)
        return Outcome.ENGINE_ERROR
    _give_up(client, _lost(f"No replica of '{call.model.name}' could answer."))
    return Outcome.LOST


def _end_cut_off(client: Caller, delivery: Delivery, hopeless: Hopeless) -> Outcome:
    """End an answer of which the client has only a part, so that nobody takes it for the whole."""
    log.warning("a stream ended after %d bytes: %s", delivery.journal.size_bytes, hopeless.reason)
    if delivery.journal.chunks:
        message = f"The replica was lost in the middle of the stream, and it cannot go on: {hopeless.reason}."
        _give_up(client, _lost(message))
    else:
        client.abort()
    return Outcome.BROKEN


def _give_up(client: Caller, refusal: Refusal) -> None:
    """The last word to a client: an envelope, or the end of what it was being sent."""
    if client.answering:
        client.write(error_event(refusal.message, refusal.code))
        client.finish()
    else:
        client.refuse(refusal)


def _lost(message: str) -> Refusal:
    return Refusal(502, "replica_lost", message, type=RefusalType.SERVER, retry_after_s=1)


def _poisonous() -> Refusal:
    message = "Replicas died of this request; it is not sent to another for a while. Change it, or report it."
    return Refusal(503, "request_kills_replicas", message, type=RefusalType.SERVER)


def _said(step: Resumption | Finish | Hopeless, sent: Sent) -> str:
    match step:
        case Resumption(way=Way.AGAIN):
            return "asked again from the start"
        case Resumption(way=way):
            return f"{way} after {sent.pieces} pieces"
        case Finish():
            return "it had all it may have"
        case Hopeless(reason=reason):
            return f"given up: {reason}"


async def forward_admin(client: ClientConnection, request: Request, worker: Worker) -> None:
    """Pass a request for the admin API to the control plane, like to any upstream."""
    ending: asyncio.Future[Ending] = worker.loop.create_future()
    relay = Relay(Delivery(client, worker.loop), worker.loop, ending=ending)
    try:
        connection = await worker.pool.connect(f"unix:{worker.settings.admin_socket}")
    except OSError:
        why = "The control plane does not answer; requests are still served. Start `autoglm serve` again."
        client.refuse(Refusal(503, "control_plane_down", why, type=RefusalType.SERVER))
        return
    headers: Headers = ((b"content-type", request.headers.get(b"content-type", b"application/json")),)
    message = (
        request_head(request.method, request.target, b"localhost", headers, len(request.body)),
        request.body,
    )
    result = await _exchange(message, connection, relay, ending, client)
    if result.result is not Result.DONE:
        _give_up(client, _lost("The control plane did not answer."))
