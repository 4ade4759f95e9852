"""What a request with a key has used, for its limits and for the books."""

from autoglm_serve.gateway.access.grants import Grant
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.recovery.journal import NO_USAGE, Usage
from autoglm_serve.usage.record import UsageRecord

_FREE = frozenset(
    {
        *(Outcome.REFUSED, Outcome.ENGINE_REFUSED, Outcome.ENGINE_ERROR, Outcome.NO_REPLICA),
        *(Outcome.LOST, Outcome.SHUTDOWN, Outcome.INTERNAL),
    }
)
"""Nothing came of these, and that was not the client's doing."""


def book(exchange: Exchange, grant: Grant) -> None:
    """The request is over."""
    account = exchange.account
    used, estimated = _used(exchange)
    record = UsageRecord(
        int(grant.begun_s),
        grant.key.id,
        grant.key.owner,
        account.model,
        account.outcome is Outcome.OK,
        used.prompt_tokens,
        used.completion_tokens,
        estimated,
    )
    exchange.worker.grants.leave(grant, record, used.prompt_tokens + used.completion_tokens)


def _used(exchange: Exchange) -> tuple[Usage, bool]:
    """What the engine has counted; else an estimate, which is true."""
    account, call = exchange.account, exchange.call
    if account.usage != NO_USAGE:
        return account.usage, False
    sent = exchange.delivery.journal.chunks if exchange.begun else []
    if not account.attempts or (account.outcome in _FREE and not sent):
        return NO_USAGE, False
    events = sum(chunk.count(b"data: {") for chunk in sent)
    prompt_tokens = max(1, call.cost_tokens - call.answer_tokens)
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=events), True
