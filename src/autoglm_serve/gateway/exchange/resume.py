"""What to ask the next replica of a request: the request as it came, or how to go on with what was sent."""

import logging

from autoglm_serve.core.fleet import Continuation, ReplicaView
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.relay import Result
from autoglm_serve.gateway.recovery import recover, typed_resume
from autoglm_serve.gateway.recovery.recover import Finish, Hopeless, Resumption, Way
from autoglm_serve.gateway.recovery.sent import read_sent

log = logging.getLogger(__name__)


def next_step(exchange: Exchange, replica: ReplicaView) -> Resumption | Finish | Hopeless | None:
    """What to ask the replica: None for the request as it came, else how to go on with what was sent."""
    if not exchange.delivery.begun:
        return None
    step, tokens = _step(exchange, replica.continuation)
    line = (exchange.id, exchange.ending.reason, replica.id, _said(step, tokens))
    log.warning("the stream of request %s lost its replica (%s); on %s: %s", *line)
    return step


def without_hope(exchange: Exchange) -> Hopeless | None:
    """Why what was begun can go on with no replica there is, so that none is waited for; None if it can."""
    if not exchange.delivery.begun:
        return None
    replicas = exchange.worker.fleet.view.replicas_of(exchange.call.model)
    steps = [_step(exchange, way)[0] for way in {replica.continuation for replica in replicas}]
    hopeless = [step for step in steps if isinstance(step, Hopeless)]
    return hopeless[0] if hopeless and len(hopeless) == len(steps) else None


def _step(exchange: Exchange, continuation: Continuation) -> tuple[Resumption | Finish | Hopeless, int]:
    """How to go on where beginnings are taken like that, and the tokens that were sent."""
    call, chunks = exchange.call, exchange.delivery.journal.chunks
    may_replay = exchange.ending.result is not Result.DIVERGED
    if not chunks:
        return Hopeless(reason="an answer in one piece cannot be gone on with"), 0
    if call.endpoint.ends_with_done:
        sent = read_sent(chunks)
        return recover.resume(call.body, sent, continuation, may_replay=may_replay), sent.tokens
    if call.endpoint.typed_events:
        told, path = typed_resume.read_told(chunks), call.endpoint.path
        step = typed_resume.resume(path, call.body, told, continuation, may_replay=may_replay)
        return step, told.tokens
    return Hopeless(reason=f"streams of {call.endpoint.path} cannot be gone on with"), 0


def _said(step: Resumption | Finish | Hopeless, tokens: int) -> str:
    match step:
        case Resumption(way=Way.AGAIN):
            return "asked again from the start"
        case Resumption(way=Way.CLOSE):
            return "only asked what the prompt counts"
        case Resumption(way=way):
            return f"{way} after {tokens} tokens"
        case Finish():
            return "it had all it may have"
        case Hopeless(reason=reason):
            return f"given up: {reason}"
