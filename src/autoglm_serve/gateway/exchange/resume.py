"""How a stream that lost its replica goes on: what to ask the next one, or why nobody can.

A body with pictures and a long answer take a while to read, and a replica that dies has many streams: that is
done in a thread of its own, so that nobody else waits for it.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar, cast

from autoglm_serve.core.fleet import Continuation, ReplicaView
from autoglm_serve.gateway.admission.admit import Call
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.relay import Result
from autoglm_serve.gateway.recovery import recover, typed_resume
from autoglm_serve.gateway.recovery.recover import Finish, Hopeless, Resumption, Way
from autoglm_serve.gateway.recovery.sent import Sent, read_sent
from autoglm_serve.gateway.wire.splice import slot

log = logging.getLogger(__name__)

T = TypeVar("T", Sent, typed_resume.Told)
Step = Resumption | Finish | Hopeless


async def next_step(exchange: Exchange, replica: ReplicaView) -> Step:
    """How to go on with what was sent on this replica."""
    ((step, tokens),) = await _elsewhere(exchange, (replica.continuation,))
    line = (exchange.id, exchange.ending.reason, replica.id, _said(step, tokens))
    log.warning("the stream of request %s lost its replica (%s); on %s: %s", *line)
    return step


async def without_hope(exchange: Exchange) -> Hopeless | None:
    """Why what was begun can go on with no replica there is, so that none is waited for; None if it can."""
    replicas = exchange.worker.fleet.value.replicas_of(exchange.call.model)
    ways = {replica.continuation for replica in replicas}
    steps = [step for step, _ in await _elsewhere(exchange, ways)]
    hopeless = [step for step in steps if isinstance(step, Hopeless)]
    return hopeless[0] if hopeless and len(hopeless) == len(steps) else None


async def _elsewhere(exchange: Exchange, ways: Iterable[Continuation]) -> list[tuple[Step, int]]:
    """`_step` for each of the ways; nothing comes to the stream meanwhile."""
    worker = exchange.worker
    return await worker.loop.run_in_executor(worker.menders, lambda: [_step(exchange, way) for way in ways])


def _step(exchange: Exchange, continuation: Continuation) -> tuple[Step, int]:
    """How to go on where beginnings are taken like that, and the tokens that were sent."""
    call, chunks = exchange.call, exchange.delivery.journal.chunks
    may_replay = exchange.ending.result is not Result.DIVERGED
    if not chunks:
        return Hopeless(reason="an answer in one piece cannot be gone on with"), 0
    if call.endpoint.ends_with_done:
        sent = _once(exchange, read_sent)
        step = recover.resume(call.body, sent, continuation, may_replay=may_replay)
        return _with_slot(step, call), sent.tokens
    if call.endpoint.typed_events:
        told, path = _once(exchange, typed_resume.read_told), call.endpoint.path
        step = typed_resume.resume(path, call.body, told, continuation, may_replay=may_replay)
        return _with_slot(step, call), told.tokens
    return Hopeless(reason=f"streams of {call.endpoint.path} cannot be gone on with"), 0


def _with_slot(step: Step, call: Call) -> Step:
    """Where the model's name is, if a replica may call it by another."""
    if not isinstance(step, Resumption) or call.model_slot is None:
        return step
    same = step.body is call.body
    return replace(step, model_slot=call.model_slot if same else slot(step.body, "model"))


def _once(exchange: Exchange, read: Callable[[Sequence[bytes]], T]) -> T:
    """What was sent as `read` takes it, read again only where more was sent since."""
    chunks = exchange.delivery.journal.chunks
    if exchange.sent is None or exchange.sent[0] != len(chunks):
        exchange.sent = (len(chunks), read(chunks))
    return cast("T", exchange.sent[1])  # all streams of one path are read in one way


def _said(step: Step, tokens: int) -> str:
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
