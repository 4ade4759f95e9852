"""A request's life: admit, route, relay, recover, account. The whole of it is `dispatch` and `serve`."""

import asyncio
import logging
from dataclasses import replace
from functools import partial

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.admission.admit import Call, admit
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.exchange.account import Account, Outcome
from autoglm_serve.gateway.exchange.attempt import Question, ask
from autoglm_serve.gateway.exchange.conclude import conclude, end_cut_off, poisonous
from autoglm_serve.gateway.exchange.delivery import Caller, Delivery, give_up
from autoglm_serve.gateway.exchange.relay import Ending, Result
from autoglm_serve.gateway.exchange.resume import next_step, without_hope
from autoglm_serve.gateway.exchange.speech_input import hear
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.recovery.recover import Finish, Hopeless, Resumption
from autoglm_serve.gateway.routing.router import Reservation
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.envelope import internal_error, stopping
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.server import ClientConnection
from autoglm_serve.route.scheduler import RoutingRequest

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 12  # of one request; those that could not even connect do not count
_ROOM_S = 0.5  # until a replica that had no room may have some
_IMPATIENT_ATTEMPTS = 2  # the first of them; a request that nobody answers in time is waited for in the end


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
        _give_up(client, request, refusal, account)
    except TimeoutError:  # the answer's last byte may have gone out in the same turn of the loop
        account.outcome = Outcome.TIMEOUT if client.owes(request) else Outcome.OK
        message = "The request took longer than this service allows (--request-timeout-s)."
        late = Refusal(504, "request_timeout", message, type=RefusalType.SERVER)
        _give_up(client, request, late, account)
    except asyncio.CancelledError:
        account.outcome = Outcome.CANCELLED if client.gone else Outcome.SHUTDOWN
        if not client.gone:
            _give_up(client, request, stopping(), account)
        raise
    except Exception:
        log.exception("a bug in the gateway ended a request to %s", request.path)
        _give_up(client, request, internal_error(), account)
    finally:
        account.close(worker.loop.time())


def _give_up(client: ClientConnection, request: Request, refusal: Refusal, account: Account) -> None:
    """The last word, unless all was said: it would pass for the answer to the client's next request."""
    if client.owes(request):
        give_up(client, request.path, refusal, account.journal)


async def serve(call: Call, request: Request, client: Caller, worker: Worker, account: Account) -> Outcome:
    """Ask replica after replica until the client has its whole answer, or nothing more can be tried."""
    delivery = Delivery(
        client,
        worker.loop,
        expected=_expected(call),
        split_reasoning=call.split_reasoning,
    )
    account.journal = delivery.journal
    if not call.streams_events:
        return await _serve(call, request, client, delivery, worker, account)
    worker.life_signs.enter(delivery)
    try:
        return await _serve(call, request, client, delivery, worker, account)
    finally:
        worker.life_signs.leave(delivery)


async def _serve(
    call: Call, request: Request, client: Caller, delivery: Delivery, worker: Worker, account: Account
) -> Outcome:
    routing = RoutingRequest(
        model=call.model, cost_tokens=call.cost_tokens, client=request.client, size_bytes=len(call.body)
    )
    ending = Ending(result=Result.LOST, reason="no replica could be asked")
    told: Ending | None = None  # the last that had something to tell
    why_no_more = "no other replica could take over"
    if worker.quarantine.holds(call.body, worker.fleet.view, worker.loop.time()):
        raise poisonous()
    asked = 0
    while asked < _MAX_ATTEMPTS:
        if routing.tried and not worker.router.may_retry(routing):
            account.retry_denied()
            why_no_more = "so many requests fail that no more of them are tried again"
            break
        hopeless = without_hope(call, delivery, worker.fleet.view, ending)
        if hopeless is not None:
            return end_cut_off(call, client, delivery, hopeless)
        reservation = await _place(routing, ending, worker)
        if reservation is None:
            break
        with reservation:
            replica = reservation.replica
            account.attempts += 1
            question = _question(call, request, routing, account, reservation, worker)
            match next_step(call, delivery, replica, ending):
                case Resumption() as step:
                    question = replace(question, body=step.body, splicer=step.splicer)
                    account.resumed(step.way)
                case Finish(events=events):
                    delivery.events(events)
                    delivery.finish()
                    return Outcome.OK
                case Hopeless() as cut:
                    return end_cut_off(call, client, delivery, cut)
                case None:
                    pass
            ending = await _ask_in_turn(question, call, replica, client, delivery, worker, routing.client)
            asked += ending.asked
        account.first_byte_s = delivery.first_byte_s
        going_on = await _heed(ending, call, replica, routing, worker, begun=delivery.begun)
        if going_on is None:
            break
        routing = going_on
        told = ending if ending.refusal is not None else told
    account.usage = ending.usage
    return conclude(ending, told, call, client, delivery, worker.fleet.view, why_no_more)


def _expected(call: Call) -> Expected:
    endpoint = call.endpoint
    return Expected(
        path=endpoint.path,
        ends_with_done=endpoint.ends_with_done,
        typed_events=endpoint.typed_events,
        choices=call.choices,
        usage=call.usage,
        field=endpoint.answer,
    )


async def _place(routing: RoutingRequest, last: Ending, worker: Worker) -> Reservation | None:
    """The replica to ask. One that has turned the request away is not followed by a wait for another: that
    has room now, or the client is told what the first one said."""
    if last.turned_away and not routing.begun:
        return worker.router.at_once(routing)
    return await worker.router.place(
        routing, wait_ready_s=worker.settings.wait_ready_s, wait_turn_s=worker.settings.wait_turn_s
    )


def _question(
    call: Call,
    request: Request,
    routing: RoutingRequest,
    account: Account,
    reservation: Reservation,
    worker: Worker,
) -> Question:
    return Question(
        request=request,
        content_type=call.content_type,
        body=call.body,
        named_model=call.named_model,
        ahead_tokens=reservation.carried_tokens,
        may_go=partial(worker.router.another_for, routing, reservation.replica),
        impatient=account.attempts <= _IMPATIENT_ATTEMPTS,
        whole=not call.stream,
    )


async def _ask_in_turn(
    question: Question,
    call: Call,
    replica: ReplicaView,
    client: Caller,
    delivery: Delivery,
    worker: Worker,
    client_id: str,
) -> Ending:
    """Ask at once; a request that a replica may have died of waits until those like it have a token."""
    made_room = await worker.trial.turn(call.body, replica.base_url, client_id)
    if made_room is None:
        return Ending(result=Result.LOST, reason="another request has just lost it")
    delivery.on_first = made_room
    try:
        return await ask(question, replica, client, delivery, worker)
    finally:
        made_room()


async def _heed(
    ending: Ending, call: Call, replica: ReplicaView, routing: RoutingRequest, worker: Worker, *, begun: bool
) -> RoutingRequest | None:
    """Learn from how an attempt ended, and what is to be asked for next; None if it was the last.

    Raises Refusal for a request that kills.
    """
    if ending.health is not None:
        worker.router.report(replica.base_url, good=ending.health)
    if ending.leaving:
        worker.router.leaves(replica)
    if ending.finish_seen:
        worker.habits.gives_finish(replica.base_url)
    if ending.result is Result.DONE:
        worker.quarantine.clear(call.body)
        for base_url in routing.answered_by:  # it was not the request
            worker.router.report(base_url, good=False)
        return None
    routing = replace(routing, begun=begun)
    if begun and ending.turned_away:  # half an answer is out: there may be nobody else to ask, so again
        await asyncio.sleep(_ROOM_S)
        return routing
    if ending.result is Result.LOST:
        routing = routing.lost_by(replica.base_url, worker.loop.time())
        died = ending.asked and not ending.events and not _is_let_go(replica, worker)
        if died and await worker.trial.lost(call.body, replica, routing.client):
            worker.quarantine.convict(call.body, worker.loop.time(), routing.client)
            raise poisonous()
    else:
        routing = routing.refused_by(replica.base_url, answered=ending.answered)
    if not begun:
        log.warning("replica %s did not answer (%s); trying elsewhere", replica.id, ending.reason)
    return routing


def _is_let_go(replica: ReplicaView, worker: Worker) -> bool:
    """It is being stopped on purpose."""
    leaving = (ReplicaState.DRAINING, ReplicaState.STOPPING)
    return any(
        each.base_url == replica.base_url and each.state in leaving for each in worker.fleet.view.replicas
    )
