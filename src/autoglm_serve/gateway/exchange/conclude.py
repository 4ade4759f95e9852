"""The last words to a client whose request could not be answered, or not to its end."""

import logging

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.relay import Result
from autoglm_serve.gateway.recovery.recover import Hopeless

log = logging.getLogger(__name__)


def conclude(exchange: Exchange) -> Outcome:
    """Tell the client what it has not been told yet, and name the outcome."""
    ending, told, call = exchange.ending, exchange.told, exchange.call
    if ending.result is Result.DONE:
        return Outcome.OK if ending.status < 400 else Outcome.ENGINE_REFUSED
    if exchange.delivery.begun:
        return end_cut_off(exchange, Hopeless(reason=exchange.why_no_more))
    if told is not None and told.refusal is not None:
        exchange.delivery.refuse(told.refusal, told.headers)
        return Outcome.ENGINE_REFUSED if told.turned_away else Outcome.ENGINE_ERROR
    replicas = exchange.worker.fleet.value.replicas_of(call.model)
    states = ", ".join(f"{each.id} {each.state}" for each in replicas) or "no replica"
    message = f"No replica of '{call.model.name}' could answer: {exchange.why_no_more} ({states})."
    exchange.delivery.refuse(_lost(message))
    return Outcome.LOST


def end_cut_off(exchange: Exchange, hopeless: Hopeless) -> Outcome:
    """End an answer of which the client has only a part, so that nobody takes it for the whole."""
    client, delivery = exchange.client, exchange.delivery
    if delivery.journal.finished:  # its usage is all that is missing, and nobody can tell it
        delivery.finish()
        return Outcome.OK
    told = (exchange.id, delivery.journal.size_bytes, hopeless.reason)
    log.warning("the stream of request %s ended after %d bytes: %s", *told)
    if delivery.journal.chunks:
        message = f"The replica was lost in the middle of the stream, and it cannot go on: {hopeless.reason}."
        delivery.refuse(_lost(message))
    else:
        client.abort()
    return Outcome.BROKEN


def _lost(message: str) -> Refusal:
    return Refusal(503, "replica_lost", message, type=RefusalType.SERVER, retry_after_s=1)


def poisonous() -> Refusal:
    message = "Replicas died of this request; it is not sent to another for a while. Change it, or report it."
    return Refusal(503, "request_kills_replicas", message, type=RefusalType.SERVER)
