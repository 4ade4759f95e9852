"""The last words to a client whose request could not be answered, or not to its end."""

import logging

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.admission.admit import Call
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.exchange.delivery import Caller, Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Result
from autoglm_serve.gateway.recovery.recover import Hopeless

log = logging.getLogger(__name__)


def conclude(
    ending: Ending,
    told: Ending | None,
    call: Call,
    client: Caller,
    delivery: Delivery,
    fleet: FleetView,
    why_no_more: str,
) -> Outcome:
    """Tell the client what it has not been told yet, and name the outcome."""
    if ending.result is Result.DONE:
        return Outcome.OK if ending.status < 400 else Outcome.ENGINE_REFUSED
    if delivery.begun:
        return end_cut_off(call, client, delivery, Hopeless(reason=why_no_more))
    if told is not None and told.refusal is not None:
        delivery.refuse(told.refusal, told.headers)
        return Outcome.ENGINE_REFUSED if told.turned_away else Outcome.ENGINE_ERROR
    states = ", ".join(f"{each.id} {each.state}" for each in fleet.replicas_of(call.model)) or "no replica"
    message = f"No replica of '{call.model.name}' could answer: {why_no_more} ({states})."
    delivery.refuse(_lost(message))
    return Outcome.LOST


def end_cut_off(call: Call, client: Caller, delivery: Delivery, hopeless: Hopeless) -> Outcome:
    """End an answer of which the client has only a part, so that nobody takes it for the whole."""
    if delivery.journal.finished:  # its usage is all that is missing, and nobody can tell it
        delivery.finish()
        return Outcome.OK
    log.warning("a stream ended after %d bytes: %s", delivery.journal.size_bytes, hopeless.reason)
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
