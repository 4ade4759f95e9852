"""From one replica to the next: which is asked, what for, and what is learnt from how it went."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial

from autoglm_serve.core.fleet import ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.exchange.attempt import ask
from autoglm_serve.gateway.exchange.conclude import conclude, end_cut_off, poisonous
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.question import Question
from autoglm_serve.gateway.exchange.relay import Ending, Result
from autoglm_serve.gateway.exchange.resume import next_step, without_hope
from autoglm_serve.gateway.recovery.recover import Finish, Hopeless, Resumption
from autoglm_serve.gateway.routing.router import Reservation
from autoglm_serve.gateway.state import Worker

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 12  # of one request; those that could not even connect do not count
_ROOM_S = 0.5  # until a replica that had no room may have some
_MOST_PATIENCE = 8.0  # times the usual silence, for a request that was lost again and again
_IMPATIENT_ATTEMPTS = 2  # the first of them; a request that nobody answers in time is waited for in the end


def serve(exchange: Exchange) -> Awaitable[Outcome]:
    """Ask replica after replica until the client has its whole answer, or nothing more can be tried."""
    exchange.begin()
    return _serve_alive(exchange) if exchange.call.streams_events else _serve(exchange)


async def _serve_alive(exchange: Exchange) -> Outcome:
    """With signs of life, where who stands between would take silence for death."""
    signs = exchange.worker.life_signs
    signs.enter(exchange.delivery)
    try:
        return await _serve(exchange)
    finally:
        signs.leave(exchange.delivery)


async def _serve(exchange: Exchange) -> Outcome:
    account, delivery = exchange.account, exchange.delivery
    if exchange.worker.quarantine.may_know(exchange.fingerprint):
        await _keep_out_what_kills(exchange)
    asked = 0
    while asked < _MAX_ATTEMPTS and _may_try(exchange):
        hopeless = await without_hope(exchange) if delivery.begun else None
        if hopeless is not None:
            return end_cut_off(exchange, hopeless)
        reservation = await _place(exchange)
        if reservation is None:
            break
        with reservation:
            account.attempts += 1
            account.replica = reservation.replica.id
            question = _question(exchange, reservation)
            match await next_step(exchange, reservation.replica) if delivery.begun else None:
                case Resumption() as step:
                    question = question._replace(
                        body=step.body, splicer=step.splicer, model_slot=step.model_slot
                    )
                    account.resumed(step.way)
                case Finish(events=events):
                    delivery.events(events)
                    delivery.finish()
                    return Outcome.OK
                case Hopeless() as cut:
                    return end_cut_off(exchange, cut)
                case None:
                    pass
            exchange.ending = await _ask_in_turn(exchange, question, reservation.replica)
            asked += exchange.ending.asked
        account.first_byte_s = delivery.first_byte_s
        if await _heed(exchange, reservation.replica):
            break
    account.usage = exchange.ending.usage
    return conclude(exchange)


async def _keep_out_what_kills(exchange: Exchange) -> None:
    worker = exchange.worker
    await _hash(exchange)
    if worker.quarantine.holds(exchange.fingerprint, worker.fleet.value, exchange.now_s):
        raise poisonous()


async def _hash(exchange: Exchange) -> None:
    """Have it hashed by another thread, if that takes long."""
    worker, fingerprint = exchange.worker, exchange.fingerprint
    if fingerprint.takes_long:
        await worker.loop.run_in_executor(worker.menders, lambda: fingerprint.digest)


def _may_try(exchange: Exchange) -> bool:
    """Whether its client's budget has another attempt; one that asked nobody anything has cost nothing."""
    routing = exchange.routing
    if routing.tried and exchange.ending.asked and not exchange.worker.router.may_retry(routing):
        exchange.account.retry_denied()
        exchange.why_no_more = "so many requests fail that no more of them are tried again"
        return False
    return True


async def _place(exchange: Exchange) -> Reservation | None:
    """The replica to ask. One that has turned the request away is not followed by a wait for another: that
    has room now, or the client is told what the first one said."""
    worker, routing = exchange.worker, exchange.routing
    if exchange.ending.turned_away and not routing.begun:
        return worker.router.at_once(routing)
    return await worker.router.place(
        routing, wait_ready_s=worker.settings.wait_ready_s, wait_turn_s=worker.settings.wait_turn_s
    )


def _question(exchange: Exchange, reservation: Reservation) -> Question:
    router, routing = exchange.worker.router, exchange.routing
    return Question(
        body=exchange.call.body,
        model_slot=exchange.call.model_slot,
        ahead_tokens=reservation.carried_tokens,
        may_go=partial(router.another_for, routing, reservation.replica),
        impatient=exchange.account.attempts <= _IMPATIENT_ATTEMPTS,
        patience=min(2.0**routing.losses, _MOST_PATIENCE) if routing.tried else 1.0,
        whole=not exchange.call.stream,
    )


async def _ask_in_turn(exchange: Exchange, question: Question, replica: ReplicaView) -> Ending:
    """Ask at once; a request that a replica may have died of waits until those like it have a token."""
    suspects, who = exchange.worker.suspects, exchange.identity.holder
    if exchange.worker.quarantine.may_know(exchange.fingerprint):
        await _hash(exchange)
    made_room = await suspects.turn(exchange.fingerprint, replica.base_url, who)
    if made_room is None:
        return Ending(result=Result.LOST, reason="another request has just lost it")
    exchange.delivery.on_first = made_room
    try:
        return await ask(exchange, question, replica)
    finally:
        made_room()


async def _heed(exchange: Exchange, replica: ReplicaView) -> bool:
    """Learn from how an attempt ended, and change what is asked for next; true if it was the last.

    Raises Refusal for a request that kills.
    """
    worker, ending, begun = exchange.worker, exchange.ending, exchange.delivery.begun
    exchange.told = ending if ending.refusal is not None else exchange.told
    _tell_of(replica, ending, worker)
    if ending.result is Result.DONE:
        if worker.quarantine.may_know(exchange.fingerprint):
            await _hash(exchange)
            worker.quarantine.clear(exchange.fingerprint)
        if exchange.routing.tried:
            for base_url in exchange.routing.answered_by:  # it was not the request
                worker.router.report(base_url, good=False)
        return True
    routing = exchange.routing._replace(begun=begun)
    if begun and ending.turned_away:  # half an answer is out: there may be nobody else to ask, so again
        exchange.routing = routing
        await asyncio.sleep(_ROOM_S)
        return False
    if ending.result is Result.LOST:
        exchange.routing = routing.lost_by(replica.base_url, exchange.now_s)
        await _hold_against(exchange, replica)
    else:
        exchange.routing = routing.refused_by(replica.base_url, answered=ending.answered)
    if not begun:
        told = (replica.id, exchange.id, ending.reason)
        log.warning("replica %s did not answer request %s (%s); trying elsewhere", *told)
    return False


def _tell_of(replica: ReplicaView, ending: Ending, worker: Worker) -> None:
    """What an attempt showed of its replica, to those who remember it."""
    health = ending.health
    if health is not None:
        worker.router.report(replica.base_url, good=health)
    if ending.leaving:
        worker.router.leaves(replica)
    if ending.refused:
        worker.router.refuses(replica)
        worker.streams.refused(replica.base_url, worker.loop.time())
    if ending.finish_seen:
        worker.habits.gives_finish(replica.base_url)


async def _hold_against(exchange: Exchange, replica: ReplicaView) -> None:
    """The replica was lost: the request may be what it died of. Raises Refusal for one that kills."""
    worker, ending, asked = exchange.worker, exchange.ending, exchange.fingerprint
    if not ending.asked or ending.events or _is_let_go(replica, worker):
        return
    who = exchange.identity.holder
    await _hash(exchange)
    if await worker.suspects.lost(asked, replica, who):
        worker.quarantine.convict(asked, exchange.now_s, who)
        raise poisonous()


def _is_let_go(replica: ReplicaView, worker: Worker) -> bool:
    """It is being stopped on purpose."""
    leaving = (ReplicaState.DRAINING, ReplicaState.STOPPING)
    return any(
        each.base_url == replica.base_url and each.state in leaving for each in worker.fleet.value.replicas
    )
