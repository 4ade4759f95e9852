"""A request's life: admit, route, relay, recover, account. The whole of it is `dispatch`."""

import asyncio
import logging

from autoglm_serve.core.fleet import ModelView, ReplicaView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.account import Account, Outcome
from autoglm_serve.gateway.admit import Call, admit
from autoglm_serve.gateway.endpoints import ENDPOINTS
from autoglm_serve.gateway.envelope import error_event, internal_error
from autoglm_serve.gateway.hear import hear
from autoglm_serve.gateway.http import Headers, Request, request_head
from autoglm_serve.gateway.journal import Journal
from autoglm_serve.gateway.local import fleet_states
from autoglm_serve.gateway.relay import Caller, Ending, Relay, Result
from autoglm_serve.gateway.server import ClientConnection
from autoglm_serve.gateway.splice import with_field
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.upstream import Connection
from autoglm_serve.route.least_cost import Choice, choose

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3
_COLD_START_S = 30.0
"""A model on demand is waited for at least this long: its first request has to load it."""
_MAY_BECOME_READY = frozenset({ReplicaState.STARTING, ReplicaState.WAITING, ReplicaState.STOPPING})


async def dispatch(client: ClientConnection, request: Request, worker: Worker) -> None:
    """Serve one request. However it ends, it ends in one outcome, and the client is told."""
    account = Account(worker.board, request.path, request.started_s)
    try:
        async with asyncio.timeout(worker.settings.request_timeout_s or None):
            call = admit(request, ENDPOINTS[request.path], worker.fleet.view, worker.settings.media)
            account.model = call.model.name
            if call.audio:
                call = await hear(call, worker, serve)
            await serve(call, request, client, worker, account)
    except Refusal as refusal:
        account.outcome = Outcome.REFUSED if refusal.status < 500 else Outcome.NO_REPLICA
        client.refuse(refusal)
    except TimeoutError:
        account.outcome = Outcome.BROKEN
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


async def serve(call: Call, request: Request, client: Caller, worker: Worker, account: Account) -> None:
    """Try replicas until one has answered, or nothing more can be tried."""
    tried: set[str] = set()
    journal = Journal()
    ending = Ending(result=Result.UNSENT)
    while len(tried) < _MAX_ATTEMPTS:
        choice = await route(call.model, worker, tried)
        replica = choice.replica
        if replica is None:
            break
        tried.add(replica.id)
        account.attempts += 1
        with worker.load.take(replica.slot, call.cost_tokens):
            ending = await attempt(call, request, replica, client, worker, journal, account)
        if ending.result is not Result.UNSENT:
            break
        log.warning("replica %s did not answer (%s); trying elsewhere", replica.id, ending.reason)
    account.usage = ending.usage
    account.outcome = _conclude(ending, call, client, journal)


async def route(model: ModelView, worker: Worker, tried: set[str]) -> Choice:
    """The replica to ask next. With none ready, wait for one as long as one may become so."""
    wait_s = worker.settings.wait_ready_s
    deadline_s = worker.loop.time() + (max(wait_s, _COLD_START_S) if model.on_demand else wait_s)
    while True:
        view = worker.fleet.view
        replicas = view.replicas_of(model)
        worker.spin += 1
        loads = [worker.load.cost_tokens(replica.slot, worker.settings.workers) for replica in replicas]
        choice = choose(replicas, loads, tried=tried, spin=worker.spin)
        if choice.replica is not None or tried:
            return choice
        if model.on_demand:  # at every change anew: it may have gone to rest while this request came
            worker.wake(model.name)
        hopeful = any(replica.state in _hopes(model) for replica in replicas)
        left_s = deadline_s - worker.loop.time()
        if not hopeful or left_s <= 0:
            raise _not_ready(model, fleet_states(view), hopeful)
        try:
            async with asyncio.timeout(left_s):
                await worker.fleet.changed()
        except TimeoutError:
            continue


def _hopes(model: ModelView) -> frozenset[ReplicaState]:
    return _MAY_BECOME_READY | {ReplicaState.STOPPED} if model.on_demand else _MAY_BECOME_READY


async def attempt(
    call: Call,
    request: Request,
    replica: ReplicaView,
    client: Caller,
    worker: Worker,
    journal: Journal,
    account: Account,
) -> Ending:
    """Ask one replica and relay what it answers. Leaves nothing behind, whoever goes first."""
    message = _message(call, request, replica)
    for fresh in (False, True):
        ending: asyncio.Future[Ending] = worker.loop.create_future()
        relay = Relay(
            client,
            journal,
            ending=ending,
            extra=((b"x-autoglm-replica", replica.id.encode()),),
            split_reasoning=call.split_reasoning,
            ends_with_done=call.endpoint.ends_with_done,
            now=worker.loop,
        )
        connection = None if fresh else worker.pool.idle(replica.base_url)
        if connection is None:
            try:
                connection = await worker.pool.connect(replica.base_url)
            except OSError as error:
                return Ending(result=Result.UNSENT, reason=f"cannot connect: {error}")
        result = await _exchange(message, connection, relay, ending, client)
        account.first_byte_s = relay.first_byte_s
        # A kept connection that the engine had closed at that moment says nothing of the replica.
        stale = connection.used > 1 and not connection.replied and result.result is Result.UNSENT
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
        return Ending(result=Result.UNSENT, reason="connection closed before the request was sent")
    relay.connection = connection
    client.on_pause, client.on_resume = relay.pause, relay.resume
    try:
        connection.send(message, relay)
        return await ending
    finally:
        relay.abandon()


def _message(call: Call, request: Request, replica: ReplicaView) -> tuple[bytes, ...]:
    """The request as the replica gets it: the client's bytes, with the model's name in its own terms."""
    body = call.body
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


def _conclude(ending: Ending, call: Call, client: Caller, journal: Journal) -> Outcome:
    """Tell the client what it has not been told yet, and name the outcome."""
    match ending.result:
        case Result.DONE:
            return Outcome.OK if ending.status < 400 else Outcome.ENGINE_REFUSED
        case Result.BROKEN:
            log.warning("a stream broke after %d bytes: %s", journal.size_bytes, ending.reason)
            if journal.chunks:
                client.write(error_event("The replica was lost in the middle of the stream.", "replica_lost"))
                client.finish()
            else:
                client.abort()  # half a body must not look like a whole one
            return Outcome.BROKEN
        case Result.UNSENT if ending.body:
            client.respond(ending.status, ending.headers, ending.body)
            return Outcome.ENGINE_ERROR
        case Result.UNSENT:
            _give_up(client, _lost(f"No replica of '{call.model.name}' could answer."))
            return Outcome.LOST


def _give_up(client: Caller, refusal: Refusal) -> None:
    """The last word to a client: an envelope, or the end of what it was being sent."""
    if client.answering:
        client.write(error_event(refusal.message, refusal.code))
        client.finish()
    else:
        client.refuse(refusal)


def _lost(message: str) -> Refusal:
    return Refusal(502, "replica_lost", message, type=RefusalType.SERVER, retry_after_s=1)


def _not_ready(model: ModelView, states: dict[str, ReplicaState], hopeful: bool) -> Refusal:
    told = ", ".join(f"{id} {state}" for id, state in states.items()) or "no replica"
    return Refusal(
        503,
        "no_replica_ready",
        f"No replica of '{model.name}' is ready ({told}).",
        type=RefusalType.OVERLOADED,
        retry_after_s=2 if hopeful else 30,
    )


async def forward_admin(client: ClientConnection, request: Request, worker: Worker) -> None:
    """Pass a request for the admin API to the control plane, like to any upstream."""
    journal = Journal()
    ending: asyncio.Future[Ending] = worker.loop.create_future()
    relay = Relay(client, journal, ending=ending, now=worker.loop)
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
    if result.result is Result.UNSENT:
        _give_up(client, _lost("The control plane did not answer."))
    elif result.result is Result.BROKEN:
        client.abort()
